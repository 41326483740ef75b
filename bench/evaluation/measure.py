"""Evaluation benchmark: both sides by one run of the stage, beside two runs of lm-evaluation-harness.

A base model and an adapter on it answer the same items of a task with generated answers. Each run is a process of its
own, with its start and the load of the model. Runs of both alternate. Processor time is measured beside wall time,
since other programs slow one down more than the other; without a GPU all processes use one thread.
Writes ``bench/results/evaluation.json``.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

import yaml
from workload import ON_GPU, Bench, machine, make_rows, timed

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench/results/evaluation.json"
HARNESS = Path(__file__).with_name("harness_run.py")
#: Wall and processor seconds.
Times = tuple[float, float]
TASK = "records"
NEW_TOKENS = 48
MAX_LENGTH = 256


def lay_out(root: Path, model: Path | None) -> Bench:
    """Mount root with the model, or with one made on the spot."""
    if model is not None:
        for claim in ("models", "data", "out"):
            (root / "pvc" / claim).mkdir(parents=True)
        (root / "pvc/models/base").symlink_to(model.resolve(), target_is_directory=True)
    bench = Bench(root, rows=128)
    bench.write_rows("train.jsonl", make_rows(128))
    return bench


def train_adapter(bench: Bench) -> Any:
    """Artifact of an adapter after a few steps."""
    prepared = bench.prepare({"sft": {"maxLength": MAX_LENGTH}})
    assert prepared.model
    assert prepared.dataset
    trained = bench.run(
        "train",
        baseModel="pvc://models/base",
        baseModelRevision=prepared.model.revision,
        datasetDigest=prepared.dataset.digest,
        method={"sft": {"maxLength": MAX_LENGTH}},
        adapter={"rank": 16},
        hyperparameters={
            "epochs": 1,
            "maxSteps": 2,
            "batchSize": 4,
            "microBatchSize": 4,
            "learningRate": 1e-3,
            "seed": 1,
        },
        checkpoints={"everySteps": 1000, "keep": 1},
        gpusPerNode=int(ON_GPU),
        image="bench",
    )
    assert trained.training
    return trained.training.artifact


def define_task(bench: Bench, items: int) -> None:
    """A task of lm-evaluation-harness with its data in a file."""
    folder = bench.root / "pvc/data/tasks"
    folder.mkdir()
    data = folder / "test.jsonl"
    rows = [[message["content"] for message in row["messages"]] for row in make_rows(items, seed=9)]
    data.write_text("".join(json.dumps({"question": row[0], "answer": row[1]}) + "\n" for row in rows))
    definition = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "num_fewshot": 0,
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{TASK}.yaml").write_text(yaml.safe_dump(definition))


def by_stage(bench: Bench, artifact: Any) -> dict[str, list[str]]:
    """Answers of both sides in the order of the rows."""
    bench.uid += 1
    suite = {
        "name": TASK,
        "harness": {
            "task": TASK,
            "data": "pvc://data/tasks/test.jsonl",
            "include": "pvc://data/tasks",
            "chatTemplate": True,
        },
        "metrics": [{"type": "TaskScore", "taskMetric": "exact_match"}],
        "maxNewTokens": NEW_TOKENS,
    }
    report = bench.run(
        "evaluate",
        baseModel="pvc://models/base",
        sides=[
            {"name": "tuned", "adapter": {"uri": artifact.uri, "digest": artifact.digest}},
            {"name": "base"},
        ],
        suites=[suite],
        gpus=int(ON_GPU),
    )
    path = bench.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    items = [json.loads(line) for line in path.read_text().splitlines()]
    answers = {side: [item["answers"][side][0]["text"] for item in items] for side in ("tuned", "base")}
    return answers


def by_harness(bench: Bench, adapter: Path | None, batch: int) -> list[str]:
    """Answers of one side in the order of the rows.

    Raises:
        RuntimeError: the run failed.
    """
    command = [
        sys.executable,
        str(HARNESS),
        "--model",
        str(bench.model),
        "--task",
        TASK,
        "--batch",
        str(batch),
    ]
    command += ["--include", str(bench.root / "pvc/data/tasks")]
    command += ["--adapter", str(adapter)] if adapter else []
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = os.environ | offline | {"HF_HOME": str(bench.root / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    answers: list[str] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def measured(action: Callable[[], Any]) -> tuple[Any, Times]:
    """Result of an action that starts processes, and their wall and processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result, wall = timed(action)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(bench: Bench, items: int, repeats: int, batches: list[int]) -> dict[str, Any]:
    """Alternating runs of both; wall and processor seconds, and the share of answers that are the same."""
    artifact = train_adapter(bench)
    adapter = bench.root / "pvc" / artifact.uri.removeprefix("pvc://")
    define_task(bench, items)
    ours: list[Times] = []
    theirs: dict[int, list[Times]] = {batch: [] for batch in batches}
    same: list[bool] = []
    for _ in range(repeats):
        answers, times = measured(lambda: by_stage(bench, artifact))
        ours.append(times)
        for batch in batches:
            found, times = measured(
                lambda batch=batch: (by_harness(bench, adapter, batch), by_harness(bench, None, batch))
            )
            theirs[batch].append(times)
            for own, other in zip((answers["tuned"], answers["base"]), found, strict=True):
                same += [one == two for one, two in zip(own, other, strict=True)]
    return {
        "items": items,
        "newTokens": NEW_TOKENS,
        "repeats": repeats,
        "ours": ours,
        "harness": {
            str(batch): {"times": times, "ratio": [_ratio(ours, times, part) for part in (0, 1)]}
            for batch, times in theirs.items()
        },
        "sameAnswers": sum(same) / len(same),
    }


def _ratio(ours: list[Times], theirs: list[Times], part: int) -> float:
    return statistics.median(times[part] for times in ours) / statistics.median(
        times[part] for times in theirs
    )


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="folder of the model; by default one that is made on the spot"
    )
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 16],
        help="batch sizes of lm-evaluation-harness; its default is 1",
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if not ON_GPU:
        os.environ["OMP_NUM_THREADS"] = "1"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as root:
        found = measure(lay_out(Path(root), options.model), options.items, options.repeats, options.batch)
    name = options.model.name if options.model else "a random Llama of 2.8 million parameters"
    result = {"machine": machine(), "model": name, "loadAverage": [load, os.getloadavg()[0]], **found}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
