"""Checks of training runs as pods do them: each method, peak memory beside its estimate, preemption, evaluation."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from check_runner import CheckFailed, Place, Skipped
from workload import ON_GPU, Bench, make_rows

from tunesmith.decide.fit.memory import CONTEXT, estimate
from tunesmith_contract.report import RunReport, TrainingReport
from tunesmith_contract.run_config import TrainConfig, parse_run_config

_GIB = 2**30
_ROWS = 640 if ON_GPU else 80
_LENGTH = 1024 if ON_GPU else 256
_STEPS = 20 if ON_GPU else 3
_BATCH = 16 if ON_GPU else 4
_MICRO = 8 if ON_GPU else 2
_SFT = {"sft": {"maxLength": _LENGTH}}
_ADAPTER = {"rank": 16, "alpha": 32}
#: Largest difference of a loss after a resume; sums on a GPU are not made in the same order each time.
_LOSS_TOLERANCE = 0.02 if ON_GPU else 0.0
#: Free memory that ``torch.cuda.mem_get_info`` claims in the check of QLoRA beside a full GPU.
_FREE_BYTES_ENV = "SMOKE_FREE_BYTES"
_CLAIM_FREE_BYTES = f"""
import os
if os.environ.get({_FREE_BYTES_ENV!r}):
    import torch
    measured = torch.cuda.mem_get_info
    free = int(os.environ[{_FREE_BYTES_ENV!r}])
    torch.cuda.mem_get_info = lambda device=None: (free, measured(device)[1])
"""


def open_bench(place: Place, uid: int) -> Bench:
    """Model and data of this run; ``uid`` is another one for each check."""
    return Bench(place.folder / "work", rows=_ROWS, uid=uid, echo=True)


def make_model_and_data(place: Place) -> dict[str, Any]:
    """Random model, generated rows, and rows prepared for training."""
    report = open_bench(place, 0).prepare(_SFT)
    assert report.model
    assert report.dataset
    (place.folder / "work/prepared.json").write_text(report.to_json())
    return {"parameters": report.model.parameters, "rows": report.dataset.rows}


def train_lora(place: Place) -> dict[str, Any]:
    """LoRA on packed rows."""
    return _train(place, 100)


def train_lora_unpacked(place: Place) -> dict[str, Any]:
    """LoRA on padded rows."""
    return _train(place, 200, packing=False)


def train_qlora(place: Place) -> dict[str, Any]:
    """QLoRA."""
    return _train(place, 300, adapter=_ADAPTER | {"type": "QLoRA"})


def train_qlora_with_little_memory(place: Place) -> dict[str, Any]:
    """QLoRA on a GPU that has no room for the 16-bit base model when the adapter is measured."""
    if not ON_GPU:
        raise Skipped("no GPU, whose memory could be full")
    site = place.folder / "work/site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_CLAIM_FREE_BYTES)
    environment = {
        _FREE_BYTES_ENV: str(_GIB),
        "PYTHONPATH": os.pathsep.join([str(site), *sys.path]),
    }
    return _train(place, 400, adapter=_ADAPTER | {"type": "QLoRA"}, environment=environment)


def train_full(place: Place) -> dict[str, Any]:
    """All weights."""
    return _train(place, 500, adapter=None)


def train_zero3_merged(place: Place) -> dict[str, Any]:
    """LoRA with ZeRO-3, and the merged model."""
    return _train(place, 600, parallelism="ZeRO3", formats=["Adapter", "Merged"])


def train_zero3_offloaded(place: Place) -> dict[str, Any]:
    """LoRA with ZeRO-3, weights and optimizer in host memory."""
    return _train(place, 700, parallelism="ZeRO3", offload="All", activationCheckpointing=True)


def train_grpo(place: Place) -> dict[str, Any]:
    """GRPO with a reward for digits."""
    bench = open_bench(place, 800)
    rows = [{"prompt": row["messages"][:1]} for row in make_rows(64)]
    bench.write_rows("prompts.jsonl", rows)
    digits = {"name": "digits", "regex": {"pattern": "[0-9]"}}
    method = {"grpo": {"rewards": [digits], "generations": 4, "maxCompletionLength": 32 if ON_GPU else 6}}
    prepared = bench.prepare(method, held_out=0.0, rows="prompts.jsonl")
    numbers = {"maxSteps": 5 if ON_GPU else 2, "batchSize": 8, "microBatchSize": 4, "learningRate": 1e-4}
    config = _train_config(prepared, method=method, hyperparameters=numbers)
    return _describe(prepared, config, _training(bench.run("train", **config)), place)


def resume_after_sigterm(place: Place) -> dict[str, Any]:
    """SIGTERM in the middle of a run; the resumed run has the losses of one that nobody disturbed."""
    numbers = {"maxSteps": 8, "batchSize": _BATCH, "microBatchSize": _MICRO, "learningRate": 1e-3}
    more = {"hyperparameters": numbers, "checkpoints": {"everySteps": 2, "keep": 2}}
    bench = open_bench(place, 900)
    prepared = _take_prepared(bench, place)
    whole = _training(bench.run("train", **_train_config(prepared, **more)))
    _take_prepared(bench, place)
    config = _train_config(prepared, **more)
    seconds = _interrupt(bench, config)
    report = bench.report()
    assert report
    assert report.checkpoint
    stopped = report.checkpoint.step
    resumed = _training(bench.run("train", **config))
    before = {point.step: point.loss for point in whole.curve if point.loss is not None}
    after = {point.step: point.loss for point in resumed.curve if point.loss is not None}
    if before.keys() != after.keys() or resumed.steps != whole.steps:
        raise CheckFailed(f"steps {sorted(after)} after the resume, {sorted(before)} without")
    difference = max(abs(before[step] - after[step]) for step in before)
    found = {"stoppedAtStep": stopped, "sigtermToEndSeconds": seconds, "largestLossDifference": difference}
    if difference > _LOSS_TOLERANCE:
        raise CheckFailed("losses differ after the resume", **found)
    return found


def evaluate(place: Place) -> dict[str, Any]:
    """Answers of an adapter and of its base model to 64 questions."""
    bench = open_bench(place, 1000)
    trained = place.numbers("lora")["artifact"]
    suite: dict[str, Any] = {"name": "task", "dataset": "pvc://data/test.jsonl", "metrics": ["ExactMatch"]}
    suite |= {"maxNewTokens": 128 if ON_GPU else 8, "limit": 64 if ON_GPU else 8}
    start = time.monotonic()
    with _used_gpu_memory() as used:
        report = bench.run(
            "evaluate",
            baseModel="pvc://models/base",
            sides=[{"name": "candidate", "adapter": trained}, {"name": "base"}],
            suites=[suite],
            policy="{}",
            gpus=int(ON_GPU),
        )
    seconds = time.monotonic() - start
    assert report.evaluation
    answers = 2 * suite["limit"]
    found: dict[str, Any] = {"answers": answers, "answersPerSecond": answers / seconds}
    # A random model rarely ends its answer before the limit.
    found["tokensPerSecondAtMost"] = answers * suite["maxNewTokens"] / seconds
    return found | ({"peakGiB": max(used) / _GIB} if ON_GPU else {})


def _train(
    place: Place, uid: int, *, packing: bool = True, environment: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """Train on the prepared rows; kernels, speed, memory and artifact."""
    bench = open_bench(place, uid)
    bench.environment = environment or {}
    prepared = _take_prepared(bench, place)
    config = _train_config(prepared, method={"sft": {"maxLength": _LENGTH, "packing": packing}}, **more)
    return _describe(prepared, config, _training(bench.run("train", **config)), place)


def _take_prepared(bench: Bench, place: Place) -> RunReport:
    """Give a new job the rows that were prepared once."""
    bench.uid += 1
    jobs = bench.root / "pvc/out/bench"
    source, target = jobs / "prepare-1/prepared", jobs / f"prepare-{bench.uid}/prepared"
    shutil.copytree(source, target)
    return RunReport.model_validate_json((place.folder / "work/prepared.json").read_text())


def _train_config(prepared: RunReport, **more: Any) -> dict[str, Any]:
    assert prepared.model
    assert prepared.dataset
    config: dict[str, Any] = {
        "baseModel": "pvc://models/base",
        "baseModelRevision": prepared.model.revision,
        "datasetDigest": prepared.dataset.digest,
        "method": _SFT,
        "adapter": _ADAPTER,
        "hyperparameters": {
            "maxSteps": _STEPS,
            "epochs": 50,
            "batchSize": _BATCH,
            "microBatchSize": _MICRO,
            "learningRate": 1e-3,
            "seed": 1,
        },
        "checkpoints": {"everySteps": 1000, "keep": 1},
        "gpusPerNode": int(ON_GPU),
        "image": "smoke",
    }
    config |= more
    if config["adapter"] is None:
        del config["adapter"]
    config["hyperparameters"] = {"epochs": 50, "seed": 1} | config["hyperparameters"]
    return config


def _training(report: RunReport) -> TrainingReport:
    assert report.training
    return report.training


def _describe(
    prepared: RunReport, config: dict[str, Any], training: TrainingReport, place: Place
) -> dict[str, Any]:
    # The configuration as the trainer read it, with its defaults.
    run = parse_run_config((place.folder / "work/run.json").read_text())
    assert isinstance(run, TrainConfig)
    assert prepared.model
    assert prepared.dataset
    memory = estimate(prepared.model, run, prepared.dataset.tokens.max)
    manifest = json.loads((artifact_folder(place, training.artifact.digest) / "manifest.json").read_text())
    if config["gpusPerNode"] == 0:
        compared = {"peakGiB": training.peak_memory_bytes / _GIB}
    else:
        # The peak is what torch reserved: the context is not in it.
        expected = memory.total - CONTEXT if memory else 0.0
        compared = {
            "peakGiB": training.peak_memory_bytes / _GIB,
            "estimateGiB": expected / _GIB,
            "peakToEstimate": training.peak_memory_bytes / expected if expected else 0.0,
        }
    noise = manifest.get("noise")
    return {
        "kernels": training.kernels,
        "precision": training.precision,
        "tokensPerSecond": training.tokens_per_second,
        **compared,
        "loss": training.loss,
        "trainingSeconds": training.seconds,
        "probes": len(manifest["probes"]),
        **({"manifestNoise": noise} if noise else {}),
        "artifact": {"uri": training.artifact.uri, "digest": training.artifact.digest},
        "exports": [export.artifact.digest for export in training.exports],
    }


def artifact_folder(place: Place, digest: str) -> Path:
    """Folder of an artifact of this run."""
    return place.folder / "work/pvc/out/sha256" / digest.removeprefix("sha256:")


def _interrupt(bench: Bench, config: dict[str, Any]) -> float:
    """Start a run and end it by SIGTERM at its third step; seconds that it took to end."""
    process = bench.start("train", **config)
    assert process.stdout
    seen = 0
    for line in process.stdout:
        seen += "'loss'" in line
        if seen == 3:
            break
    signalled = time.monotonic()
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate()
    if process.returncode != 15:
        raise CheckFailed(f"exit code {process.returncode} after SIGTERM: {log[-2000:]}")
    return time.monotonic() - signalled


@contextmanager
def _used_gpu_memory() -> Iterator[list[int]]:
    """Bytes of the GPU that others took while the block ran, sampled; empty without a GPU."""
    samples: list[int] = []
    if not ON_GPU:
        yield samples
        return
    free_before = torch.cuda.mem_get_info()[0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.1):
            samples.append(free_before - torch.cuda.mem_get_info()[0])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
