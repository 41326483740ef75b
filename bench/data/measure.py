"""How many rows a second prepare reads, checks, counts, cleans, judges and writes, and how much memory it takes.

Conversations beside a plain script that uses ``datasets`` for the same checks, and a million of them alone; writes
``bench/results/data.json``. Memory is the sum over all processes of a side, shared pages counted once, sampled five
times a second: what a pod's limit would have to be.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench/results/data.json"
PLAIN = Path(__file__).with_name("plain.py")
SAMPLE_SECONDS = 0.2
MAKE_MODEL = "import sys, pathlib, workload; workload.make_model(pathlib.Path(sys.argv[1]))"

#: Of the rows: repeated ones, and such as fail a check.
REPEATED, INVALID = 0.01, 0.001
WORDS = [
    "river",
    "market",
    "engine",
    "silver",
    "garden",
    "window",
    "doctor",
    "letter",
    "winter",
    "bridge",
    "copper",
    "forest",
    "signal",
    "harbor",
    "planet",
    "butter",
    "castle",
    "danger",
    "effort",
    "fabric",
    "guitar",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "mirror",
    "needle",
    "office",
    "pencil",
    "quartz",
    "rocket",
    "saddle",
    "tunnel",
    "umbrella",
    "valley",
    "wagon",
    "yellow",
    "anchor",
    "basket",
    "candle",
    "desert",
]


def make_lines(count: int, seed: int = 0) -> Iterator[str]:
    """Conversations of one to three questions as JSONL."""
    chance = random.Random(seed)
    earlier: list[str] = []
    for number in range(count):
        if earlier and chance.random() < REPEATED:
            yield chance.choice(earlier)
            continue
        row = {"messages": list(_turns(chance, number))}
        if chance.random() < INVALID:
            row["messages"][0]["role"] = "human"
        line = json.dumps(row)
        if len(earlier) < 10_000:
            earlier.append(line)
        yield line


def _turns(chance: random.Random, number: int) -> Iterator[dict[str, str]]:
    for turn in range(chance.choice((1, 1, 1, 2, 3))):
        question, answer = (" ".join(chance.choices(WORDS, k=chance.randint(4, 40))) for _ in range(2))
        yield {"role": "user", "content": f"Question {number}.{turn}: what about {question}?"}
        yield {"role": "assistant", "content": f"{answer.capitalize()}."}


class Memory(threading.Thread):
    """Watches the memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self.peak_bytes = 0

    def run(self) -> None:
        """Look until the process has ended."""
        while self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE:
            self.peak_bytes = max(self.peak_bytes, self._now())
            time.sleep(SAMPLE_SECONDS)

    def _now(self) -> int:
        total = 0
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        return total


def watch(command: list[str]) -> tuple[float, int, str]:
    """Seconds, peak bytes and output of a command.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        memory = Memory(process.pid)
        memory.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - started
        memory.join()
        errors.seek(0)
        log = f"{output}\n{errors.read()}"
    if process.returncode != 0:
        raise RuntimeError(f"{command[:4]} failed:\n{log[-3000:]}")
    return seconds, memory.peak_bytes, log


def measure_ours(file: Path, model: Path, output: Path, rows: int) -> dict[str, Any]:
    """The stage as a pod runs it."""
    claims = output / "pvc"
    claims.mkdir()
    for name, target in (("data", file.parent), ("models", model.parent), ("out", output)):
        (claims / name).symlink_to(target)
    config = {
        "stage": "prepare",
        "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": "bench", "uid": "uid"},
        "baseModel": f"pvc://models/{model.name}",
        "train": [f"pvc://data/{file.name}"],
        "validation": {"fraction": 0.1},
        "onInvalidRow": "Drop",
        "maxInvalidFraction": 0.05,
        "method": {"sft": {"maxLength": 1024}},
        "seed": 1,
        "output": "pvc://out",
    }
    (output / "run.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "tunesmith_trainer", "prepare", "--mount-root", str(output)]
    command += ["--config", str(output / "run.json"), "--termination-log", str(output / "log")]
    seconds, peak, log = watch(command)
    report = json.loads((output / "bench/uid/data-report/report.json").read_text())
    parts = {name: float(taken) for name, taken in re.findall(r"(\w+) \d+ rows in ([\d.]+) s", log)}
    issues = [issue["check"] for issue in report["issues"]]
    return _figures(rows, seconds, peak) | {"counts": report["counts"], "parts": parts, "issues": issues}


def measure_plain(file: Path, model: Path, output: Path, rows: int, processes: int) -> dict[str, Any]:
    """The script."""
    command = [sys.executable, str(PLAIN), "--file", str(file), "--model", str(model)]
    command += ["--output", str(output), "--processes", str(processes)]
    seconds, peak, log = watch(command)
    counts = next(line for line in log.splitlines() if line.startswith("{"))
    return _figures(rows, seconds, peak) | {"counts": json.loads(counts)}


def _figures(rows: int, seconds: float, peak: int) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 1),
        "rowsPerSecond": round(rows / seconds),
        "peakMiB": round(peak / 2**20),
    }


def make_model(folder: Path) -> None:
    """The trainer's benchmark model; in a process of its own, since torch keeps its memory."""
    path = os.pathsep.join([str(ROOT / "bench/trainer"), *filter(None, sys.path)])
    command = [sys.executable, "-c", MAKE_MODEL, str(folder)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)


def compare(folder: Path, model: Path, rows: int) -> dict[str, Any]:
    """Both sides on the same rows, one after the other."""
    file = write_lines(folder / "compared.jsonl", rows)
    sides: dict[str, Any] = {}
    for side, run in (
        ("ours", lambda output: measure_ours(file, model, output, rows)),
        ("datasets", lambda output: measure_plain(file, model, output, rows, 1)),
        ("datasets2", lambda output: measure_plain(file, model, output, rows, 2)),
    ):
        sides[side] = _in_folder(folder / side, run)
    return {"rows": rows, "bytes": file.stat().st_size, "sides": sides}


def measure_many(folder: Path, model: Path, rows: int) -> dict[str, Any]:
    """How much memory many rows take."""
    file = write_lines(folder / "many.jsonl", rows)
    figures = _in_folder(folder / "many", lambda output: measure_ours(file, model, output, rows))
    return {"rows": rows, "bytes": file.stat().st_size, **figures}


def write_lines(file: Path, rows: int) -> Path:
    """A file of so many rows."""
    with file.open("w") as stream:
        stream.writelines(f"{line}\n" for line in make_lines(rows))
    return file


def _in_folder(output: Path, run: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    output.mkdir()
    figures = run(output)
    shutil.rmtree(output)
    return figures


def main() -> None:
    """Measure, and write the result: what is not measured in this run stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=200_000, help="rows that both sides read; 0: not measured"
    )
    parser.add_argument("--many", type=int, default=1_000_000, help="rows for the memory; 0: not measured")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    result["cores"] = os.cpu_count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        make_model(model)
        if options.rows:
            result["compared"] = compare(folder, model, options.rows)
        if options.many:
            result["many"] = measure_many(folder, model, options.many)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
