"""Near-duplicate search on 100,000 rows, beside text-dedup, and leaks of a held-out set; with known answers.

Seven rows in ten are prose of a made-up language, two are written from templates (alike, and yet different examples),
one is a copy of an earlier row: the same, or edited. Writes ``bench/results/near.json``. Runs in the trainer's
environment.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows.planted_rows import EDITS, Row, Writer, edited, lengthen, replace, swap, typo

from tunesmith_data.rows.clean.held_out_overlap import HeldOutOverlap, HeldOutSet
from tunesmith_data.rows.clean.near_duplicates import NearDuplicates
from tunesmith_data.rows.clean.personal_data import PersonalDataFinder
from tunesmith_data.rows.table.record import Record
from tunesmith_images.venvs import make_environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results/near.json"

ROWS = 100_000
HELD_OUT = 2_000
THRESHOLD = 0.8
BATCH = 1_000
SEED = 20

# Scripts for text-dedup's environment: it reads and writes folders of Arrow files.
TO_ARROW = """
import json, sys
from datasets import Dataset
rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
texts = [row["prompt"] + "\\n" + row["completion"] for row in rows]
Dataset.from_dict({"text": texts, "place": list(range(len(rows)))}).save_to_disk(sys.argv[2])
"""
FROM_ARROW = (
    "import sys; from datasets import load_from_disk; print(list(load_from_disk(sys.argv[1])['place']))"
)


@dataclass(frozen=True)
class Planted:
    """A row and what it is: ``prose``, ``template``, ``exact``, or the name of an edit; a copy's original."""

    kind: str
    row: Row
    original: Row | None = None


def make_rows(count: int) -> list[Planted]:
    """The corpus, each copy behind its original."""
    writer = Writer(SEED)
    prose = [Planted("prose", writer.row()) for _ in range(count * 7 // 10)]
    originals = writer.random.sample(prose, count // 10)
    templates = [Planted("template", row) for row in _template_rows(writer, count * 2 // 10)]
    copies = [_copy(writer, original.row, number) for number, original in enumerate(originals)]
    first = prose + templates
    writer.random.shuffle(first)
    return first + copies


def _copy(writer: Writer, row: Row, number: int) -> Planted:
    if number % 2:
        return Planted("exact", dict(row), row)
    edit = EDITS[number // 2 % len(EDITS)]
    return Planted(edit.__name__, edited(writer, row, (edit,)), row)


def _template_rows(writer: Writer, count: int) -> list[Row]:
    """Rows that differ in a name, a number, or a few words behind a long instruction; no two the same."""
    instruction = writer.text(60, 60)
    names, labels = writer.words(200), ("positive", "negative", "neutral")
    rows: dict[str, Row] = {}
    while len(rows) < count:
        name, thing = (writer.random.choice(names) for _ in range(2))
        amount = f"{writer.random.randint(1, 999)}.{writer.random.randint(10, 99)}"
        row = writer.random.choice(
            (
                {
                    "prompt": f"Write the record: {name} paid {amount} for {thing}.",
                    "completion": f'{{"who": "{name}", "amount": "{amount}", "what": "{thing}"}}',
                },
                {
                    "prompt": f"{instruction} Text: {writer.text(4, 14)}",
                    "completion": writer.random.choice(labels),
                },
            )
        )
        rows[row["prompt"]] = row
    return list(rows.values())


def make_held_out(rows: list[Planted], writer: Writer) -> tuple[list[Row], dict[int, str]]:
    """Held-out rows, of which every second is put into a training row; which ones, by the place of that row."""
    items = [writer.row() for _ in range(HELD_OUT)]
    leaks: dict[int, str] = {}
    ways: tuple[tuple[str, Callable[[Row], Row]], ...] = (
        ("the same row", dict),
        ("the same question", lambda row: row | {"completion": writer.text(20, 100)}),
        (
            "an edited question",
            lambda row: {
                "prompt": writer.random.choice((typo, swap, lengthen, replace))(writer, row["prompt"]),
                "completion": writer.text(20, 100),
            },
        ),
        (
            "quoted in a long text",
            lambda row: {
                "prompt": writer.text(5, 20),
                "completion": " ".join((writer.text(100, 400), row["prompt"], writer.text(100, 400))),
            },
        ),
    )
    for number, item in enumerate(items[::2]):
        kind, leak = ways[number % len(ways)]
        leaks[len(rows)] = kind
        rows.append(Planted("leak", leak(item)))
    return items, leaks


class RowsOnDisk:
    """Rows of a JSONL file by number, as prepare holds them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.offsets = [0]
        for line in self._file:
            self.offsets.append(self.offsets[-1] + len(line))

    def records(self, numbers: Sequence[int]) -> list[Record]:
        """Rows with these numbers."""
        records = []
        for number in numbers:
            self._file.seek(self.offsets[number])
            records.append(Record(number, "rows.jsonl", number + 1, json.loads(self._file.readline())))
        return records

    def batches(self) -> list[range]:
        """All numbers, in batches."""
        count = len(self.offsets) - 1
        return [range(begin, min(begin + BATCH, count)) for begin in range(0, count, BATCH)]


def find_duplicates(path: Path) -> dict[str, Any]:
    """Our side, in a process of its own: which rows are to be removed."""
    begin = time.perf_counter()
    rows, near = RowsOnDisk(path), NearDuplicates(THRESHOLD)
    for numbers in rows.batches():
        near.update(rows.records(numbers))
    seen = time.perf_counter()
    removed = [row.index for cluster in near.clusters(rows.records) for row in cluster.removed]
    end = time.perf_counter()
    return {"removed": removed, "seeing": seen - begin, "seconds": end - begin}


def find_leaks(path: Path, held_out: Path) -> dict[str, Any]:
    """Our side of leaks."""
    begin = time.perf_counter()
    rows, items = RowsOnDisk(path), RowsOnDisk(held_out)
    records = items.records(range(len(items.offsets) - 1))
    overlap = HeldOutOverlap([HeldOutSet("test", records)], THRESHOLD)
    for numbers in rows.batches():
        overlap.update(rows.records(numbers))
    removed = [leaked.index for leaked in overlap.leaks(rows.records)]
    return {"removed": removed, "seconds": time.perf_counter() - begin}


def find_personal_data(path: Path) -> dict[str, Any]:
    """How long a row without personal data takes."""
    rows, finder = RowsOnDisk(path), PersonalDataFinder()
    records = rows.records(range(10_000))
    begin = time.perf_counter()
    removed = [record.index for record in records if finder.mask_row(record.row)[1]]
    return {"removed": removed, "seconds": time.perf_counter() - begin, "rows": len(records)}


SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    "duplicates": find_duplicates,
    "leaks": find_leaks,
    "personal-data": find_personal_data,
}


def measured(command: Sequence[str], folder: Path) -> tuple[str, float, float]:
    """What a command prints, its seconds, and the peak memory of its largest process (or of this one) in MiB."""
    begin = time.perf_counter()
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "200"}
    environment = {**os.environ, **offline}
    with (folder / "output.txt").open("w+b") as output:
        process = subprocess.Popen(command, stdout=output, stderr=sys.stderr, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        output.seek(0)
        text = output.read().decode()
    if process.returncode:
        raise RuntimeError(f"{command}: exit code {process.returncode}: {text[-2000:]}")
    return text, seconds, usage.ru_maxrss / 1024


def run_side(name: str, folder: Path, *paths: Path) -> dict[str, Any]:
    """A side of ours in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", name, *map(str, paths)]
    return json.loads(measured(command, folder)[0])


def run_text_dedup(rows: Path, folder: Path) -> dict[str, Any]:
    """text-dedup's MinHash with its defaults, but the threshold, on all cores."""
    python = str(make_environment("near") / "bin/python")
    source, target = folder / "source", folder / "target"
    measured([python, "-c", TO_ARROW, str(rows), str(source)], folder)
    command = [
        python, "-m", "text_dedup.minhash", "--local", "--path", str(source), "--output", str(target),
        "--column", "text", "--idx_column", "place", "--threshold", str(THRESHOLD), "--num_proc", str(os.cpu_count()),
    ]  # fmt: skip
    text, seconds, peak = measured(command, folder)
    total = re.search(r"Total +: ([\d.]+)s", text)
    kept = set(json.loads(measured([python, "-c", FROM_ARROW, str(target)], folder)[0]))
    count = len(rows.read_bytes().splitlines())
    return {
        "removed": [place for place in range(count) if place not in kept],
        "seconds": float(total[1]) if total else seconds,
        "peakMiB": round(peak),
    }


def judged(side: dict[str, Any], rows: Sequence[Planted]) -> dict[str, Any]:
    """A side's figures: of how many pairs it removed one row, whichever, and how many rows it removed besides."""
    removed = set(side["removed"])
    places = {id(planted.row): place for place, planted in enumerate(rows)}
    pairs = {place: places[id(row.original)] for place, row in enumerate(rows) if row.original}
    planted, recalled = Counter(rows[copy].kind for copy in pairs), Counter[str]()
    right = set()
    for copy, original in pairs.items():
        if either := removed & {copy, original}:
            recalled[rows[copy].kind] += 1
            right.add(min(either))
    wrong = Counter(rows[place].kind for place in removed - right)
    others = Counter(row.kind for row in rows if row.original is None)
    return {
        "seconds": round(side["seconds"], 1),
        "peakMiB": side["peakMiB"],
        "recall": {kind: round(recalled[kind] / planted[kind], 4) for kind in sorted(planted)},
        "recallAll": round(recalled.total() / planted.total(), 4),
        "precision": round(len(right) / max(1, len(removed)), 4),
        "falseRate": {kind: round(wrong[kind] / others[kind], 5) for kind in sorted(others)},
    }


def judged_leaks(side: dict[str, Any], leaks: dict[int, str], rows: int) -> dict[str, Any]:
    """Which leaks were found, and how many other rows were taken for one."""
    removed = set(side["removed"])
    planted = Counter(leaks.values())
    recalled = Counter(kind for place, kind in leaks.items() if place in removed)
    return {
        "seconds": round(side["seconds"], 1),
        "peakMiB": side["peakMiB"],
        "recall": {kind: round(recalled[kind] / planted[kind], 4) for kind in planted},
        "recallAll": round(recalled.total() / planted.total(), 4),
        "falseRate": round(len(removed - leaks.keys()) / (rows - len(leaks)), 6),
    }


def own_peak() -> int:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def write_lines(path: Path, rows: Sequence[Row]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(folder: Path) -> dict[str, Any]:
    """Run all sides on the same rows."""
    load = [round(average, 2) for average in os.getloadavg()]
    planted = make_rows(ROWS)
    rows = write_lines(folder / "rows.jsonl", [row.row for row in planted])
    ours = judged(run_side("duplicates", folder, rows), planted)
    text_dedup = judged(run_text_dedup(rows, folder), planted)
    items, leaks = make_held_out(planted, Writer(SEED + 1))
    leaky = write_lines(folder / "leaky.jsonl", [row.row for row in planted])
    held_out = write_lines(folder / "held-out.jsonl", items)
    leak_side = run_side("leaks", folder, leaky, held_out)
    personal = run_side("personal-data", folder, rows)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "loadAverageBefore": load,
        "rows": ROWS,
        "heldOut": HELD_OUT,
        "threshold": THRESHOLD,
        "sides": {"Tunesmith": ours, "text-dedup 0.4.0": text_dedup},
        "leaks": judged_leaks(leak_side, leaks, len(planted)),
        "personalDataMicrosecondsPerRow": round(personal["seconds"] / personal["rows"] * 1e6, 1),
    }


def main() -> None:
    """Measure, or be one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("paths", type=Path, nargs="*")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](*arguments.paths) | {"peakMiB": own_peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
