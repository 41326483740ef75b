"""Trainer benchmark: speed and memory compared with TRL and Unsloth; writes ``bench/results/trainer.json``.

1. Trainer and bare TRL script with the same settings: wall time of the whole process, in alternating runs.
2. Default settings of Tunesmith and of TRL on the same data: tokens per second, final loss.
3. Time from SIGTERM to the end with a committed checkpoint; from the start of a process to its first step.
4. Full fine-tuning, LoRA and QLoRA on the same task, from a model that was trained on the opposite task (records to
   sentences): memory, time, score on unseen items.

On a GPU Unsloth is measured too, if the package is installed. Nothing is downloaded.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workload import ON_GPU, Bench, machine, make_rows, timed

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench/results/trainer.json"
BARE, UNSLOTH = (Path(__file__).with_name(name) for name in ("bare.py", "with_unsloth.py"))
MAX_LENGTH = 256
RANK = 16


def train_config(prepared: Any, *, steps: int, adapter: str | None = "LoRA", **more: Any) -> dict[str, Any]:
    """Configuration of a train run on prepared rows."""
    numbers = {"epochs": 50, "maxSteps": steps, "batchSize": 16, "microBatchSize": 8, "seed": 1}
    numbers |= {"learningRate": 2e-4 if adapter is None else 2e-3} | more.pop("numbers", {})
    config: dict[str, Any] = {
        "baseModel": "pvc://models/base",
        "baseModelRevision": prepared.model.revision,
        "datasetDigest": prepared.dataset.digest,
        "method": {"sft": {"maxLength": MAX_LENGTH, "packing": ON_GPU}},
        "hyperparameters": numbers,
        "checkpoints": {"everySteps": 1000, "keep": 1},
        "gpusPerNode": int(ON_GPU),
        "image": "bench",
    }
    if adapter is not None:
        config["adapter"] = {"type": adapter, "rank": RANK, "alpha": 32}
    return config | more


def run_script(
    script: Path, bench: Bench, rows: Path, settings: dict[str, Any], *options: str
) -> dict[str, Any]:
    """Run a comparison script in a process of its own; its printed result with the wall time in seconds."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, str(script), "--model", str(bench.model), "--rows", str(rows)]
        command += ["--output", output, "--settings", json.dumps(settings), *options]
        done, wall = timed(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result | {"wall": wall}


def same_settings(config: dict[str, Any]) -> dict[str, Any]:
    """SFTConfig arguments equivalent to a train configuration."""
    numbers, sft = config["hyperparameters"], config["method"]["sft"]
    return {
        "max_steps": numbers["maxSteps"],
        "learning_rate": numbers["learningRate"],
        "per_device_train_batch_size": numbers["microBatchSize"],
        "gradient_accumulation_steps": numbers["batchSize"] // numbers["microBatchSize"],
        "max_length": sft["maxLength"],
        "packing": sft["packing"],
        "assistant_only_loss": True,
        "activation_checkpointing": False,
        "warmup_steps": 0.03,
        "seed": numbers["seed"],
        "logging_steps": 1,
        "save_steps": config["checkpoints"]["everySteps"],
    }


def prepared_rows(bench: Bench) -> Path:
    """File of prepared training rows."""
    return bench.root / f"pvc/out/bench/prepare-{bench.uid}/prepared/train.parquet"


def beside_bare(bench: Bench, steps: int, repeats: int) -> dict[str, Any]:
    """1. Trainer and bare script with the same settings, in alternating runs."""
    trainer_runs, bare_runs = [], []
    for _ in range(repeats):
        # The script evaluates no validation rows, so the trainer has none either.
        prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}}, held_out=0.0)
        config = train_config(prepared, steps=steps)
        rows = bench.root / "rows.parquet"
        rows.write_bytes(prepared_rows(bench).read_bytes())
        bare_runs.append(run_script(BARE, bench, rows, same_settings(config)))
        report, wall = timed(lambda config=config: bench.run("train", **config))
        trainer_runs.append({"wall": wall, "seconds": report.training.seconds, "loss": report.training.loss})
    walls = [statistics.median(run["wall"] for run in runs) for runs in (trainer_runs, bare_runs)]
    loops = [statistics.median(run["seconds"] for run in runs) for runs in (trainer_runs, bare_runs)]
    return {
        "steps": steps,
        "repeats": repeats,
        "ours": {"wall": walls[0], "training": loops[0], "loss": trainer_runs[-1]["loss"]},
        "bare": {"wall": walls[1], "training": loops[1], "loss": bare_runs[-1]["loss"]},
        "wallRatio": walls[0] / walls[1],
        "trainingRatio": loops[0] / loops[1],
    }


def defaults(bench: Bench, epochs: int) -> dict[str, Any]:
    """2. Default settings of Tunesmith and TRL, with the same rows, epochs and learning rate."""
    prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
    rows = bench.root / "rows.parquet"
    rows.write_bytes(prepared_rows(bench).read_bytes())
    rate = 2e-3
    trl_run = run_script(
        BARE,
        bench,
        rows,
        {"num_train_epochs": epochs, "learning_rate": rate, "assistant_only_loss": True, "logging_steps": 5},
    )
    numbers = {"epochs": epochs, "maxSteps": None, "batchSize": 8, "learningRate": rate}
    config = train_config(prepared, steps=1, numbers=numbers)
    config["hyperparameters"].pop("maxSteps")
    training = bench.run("train", **config).training
    assert training is not None
    return {
        "epochs": epochs,
        "ours": {"tokensPerSecond": training.tokens_per_second, "loss": training.loss},
        "trl": {"tokensPerSecond": trl_run["tokens"] / trl_run["seconds"], "loss": trl_run["loss"]},
    }


def preemption(bench: Bench) -> dict[str, Any]:
    """3. Seconds to the first step, and from SIGTERM to the end of the process with a committed checkpoint."""
    prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
    start = time.monotonic()
    process = bench.start("train", **train_config(prepared, steps=1000))
    assert process.stdout
    first = next(time.monotonic() - start for line in process.stdout if "'loss'" in line)
    step = next(time.monotonic() - start for line in process.stdout if "'loss'" in line) - first
    signalled = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    ended = time.monotonic() - signalled
    report = bench.report()
    if process.returncode != 15 or report is None or report.checkpoint is None:
        raise RuntimeError(f"no checkpoint was committed: exit code {process.returncode}")
    return {"startToFirstStep": first, "step": step, "sigtermToEnd": ended}


def quality(bench: Bench, artifact: Any, *, whole: bool) -> float:
    """Mean JSONFields score on unseen items."""
    base = artifact.uri if whole else "pvc://models/base"
    adapter = None if whole else {"uri": artifact.uri, "digest": artifact.digest}
    report = bench.run(
        "evaluate",
        baseModel=base,
        sides=[{"name": "candidate", "adapter": adapter}, {"name": "same", "adapter": adapter}],
        suites=[{"name": "task", "dataset": "pvc://data/test.jsonl", "metrics": ["JSONFields"]}],
        policy="{}",
        gpus=int(ON_GPU),
    )
    assert report.evaluation is not None
    return report.evaluation.results[0].scores[0].value


def teach_base(bench: Bench, steps: int) -> None:
    """Pre-train the random base model on the opposite task: same language, other direction."""
    bench.write_rows("train.jsonl", make_rows(bench.rows, seed=3, opposite=True))
    prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
    config = train_config(prepared, steps=steps, adapter=None, numbers={"learningRate": 2e-3})
    training = bench.run("train", **config).training
    assert training is not None
    folder = bench.root / "pvc/out/sha256" / training.artifact.digest.removeprefix("sha256:")
    for file in ("model.safetensors",):
        shutil.copy(folder / file, bench.model / file)
    bench.write_rows("train.jsonl", make_rows(bench.rows))


def kinds(bench: Bench, steps: int) -> list[dict[str, Any]]:
    """4. Full fine-tuning, LoRA and QLoRA on the same task."""
    rows = []
    for adapter in (None, "LoRA", "QLoRA"):
        prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
        numbers = {"learningRate": 1e-3 if adapter is None else 4e-3}
        config = train_config(prepared, steps=steps, adapter=adapter, numbers=numbers)
        training = bench.run("train", **config).training
        assert training is not None
        rows.append(
            {
                "adapter": adapter or "none (full)",
                "seconds": training.seconds,
                "tokensPerSecond": training.tokens_per_second,
                "peakMemoryBytes": training.peak_memory_bytes,
                "evalLoss": training.eval_loss,
                "artifactBytes": training.artifact.size_bytes,
                "jsonFields": quality(bench, training.artifact, whole=adapter is None),
            }
        )
    return rows


def unsloth(bench: Bench, steps: int) -> list[dict[str, Any]] | None:
    """LoRA and QLoRA with Unsloth; None without a GPU or the package."""
    if not ON_GPU or find_spec("unsloth") is None:
        return None
    prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
    settings = same_settings(train_config(prepared, steps=steps))
    runs = {"LoRA": (), "QLoRA": ("--four-bit",)}
    return [
        {"adapter": name} | run_script(UNSLOTH, bench, prepared_rows(bench), settings, *options)
        for name, options in runs.items()
    ]


def main() -> None:
    """Measure, and update the result file; parts that are not measured keep their values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it runs, measures little")
    parser.add_argument("--only", nargs="+", help="some of the parts, by their names in the result")
    options = parser.parse_args()
    steps, repeats, epochs = (4, 1, 1) if options.quick else (40, 3, 2)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rows=160 if options.quick else 640)
        teach_base(bench, 8 * steps)
        parts: dict[str, Callable[[], Any]] = {
            "besideBare": lambda: beside_bare(bench, steps, repeats),
            "defaults": lambda: defaults(bench, epochs),
            "preemption": lambda: preemption(bench),
            "kinds": lambda: kinds(bench, 6 * steps),
            "unsloth": lambda: unsloth(bench, 6 * steps),
        }
        result = json.loads(options.output.read_text()) if options.only else {}
        result["machine"] = machine()
        result |= {name: part() for name, part in parts.items() if name in (options.only or parts)}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
