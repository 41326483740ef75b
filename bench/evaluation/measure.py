"""Evaluation benchmark: both sides by one run of the stage, beside two runs of lm-evaluation-harness.

A base model and an adapter on it answer the same items: with texts, with texts after worked examples, and by the
likelihood of choices. Each run is a process of its own, with its start and the load of the model. Runs of both
alternate. Processor time is measured beside wall time, since other programs slow one down more than the other; without
a GPU all processes use one thread. Writes ``bench/results/evaluation.json``.
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
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

import yaml
from workload import ON_GPU, Bench, machine, make_rows, timed

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench/results/evaluation.json"
HARNESS = Path(__file__).with_name("harness_run.py")
#: Wall and processor seconds.
Times = tuple[float, float]
SIDES = ("tuned", "base")
NEW_TOKENS = 32
MAX_LENGTH = 256
#: Characters of a choice.
MAX_CHOICE = 40
#: Worked examples before each question, the same for all.
EXAMPLES = 2


class Workload(NamedTuple):
    """Task of lm-evaluation-harness.

    Attributes:
        words: what it asks, for the report.
        share: share of the items that it asks about.
        examples: number of worked examples before each question.
        choices: the likelihood of choices is compared; else a text is generated.
    """

    words: str
    share: float = 1.0
    examples: int = 0
    choices: bool = False


WORKLOADS = {
    "texts": Workload("generated answers"),
    "texts-with-examples": Workload(
        f"generated answers after {EXAMPLES} worked examples", 0.5, examples=EXAMPLES
    ),
    "choices": Workload("the likeliest of four choices", choices=True),
}


def lay_out(root: Path, model: Path) -> Bench:
    """Mount root with the model and training rows."""
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


def define_task(bench: Bench, name: str, items: int) -> None:
    """A task of lm-evaluation-harness with its data in files."""
    workload, folder = WORKLOADS[name], bench.root / "pvc/data" / name
    folder.mkdir()
    files = {split: folder / f"{split}.jsonl" for split in ("train", "test")}
    for split, seed, count in (("train", 8, 16), ("test", 9, items)):
        files[split].write_text("".join(json.dumps(row) + "\n" for row in _questions(count, seed)))
    definition: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
        "training_split": "train",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "num_fewshot": workload.examples,
        "fewshot_config": {"sampler": "first_n"},
    }
    if workload.choices:
        metric = "acc"
        definition |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "label"}
    else:
        metric = "exact_match"
        settings = {"until": ["\n\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        definition |= {
            "output_type": "generate_until",
            "doc_to_target": "answer",
            "generation_kwargs": settings,
        }
    definition["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(definition))


def _questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows with an answer, and with four choices of which it is one."""
    rows = [[message["content"] for message in row["messages"]] for row in make_rows(count + 3, seed=seed)]
    found = []
    for number in range(count):
        question, answer = rows[number]
        choices = [row[1][:MAX_CHOICE] for row in rows[number : number + 4]]
        label = number % 4
        choices[0], choices[label] = choices[label], choices[0]
        found.append({"question": question, "answer": answer, "choices": choices, "label": label})
    return found


def by_stage(bench: Bench, artifact: Any, name: str) -> dict[str, list[Any]]:
    """What each side answers in the order of the rows: a text, or likelihoods of the choices."""
    bench.uid += 1
    workload = WORKLOADS[name]
    suite = {
        "name": name,
        "harness": {
            "task": name,
            "data": f"pvc://data/{name}",
            "include": f"pvc://data/{name}",
            "chatTemplate": not workload.choices,
        },
        "metrics": [{"type": "TaskScore", "taskMetric": "acc" if workload.choices else "exact_match"}],
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
    return {side: [_answer(item["answers"][side], workload) for item in items] for side in SIDES}


def by_harness(bench: Bench, name: str, adapter: Path | None, batch: int) -> list[Any]:
    """Answers of one side in the order of the rows, as ``by_stage`` gives them.

    Raises:
        RuntimeError: the run failed.
    """
    command = [sys.executable, str(HARNESS), "--model", str(bench.model), "--task", name]
    command += ["--batch", str(batch), "--include", str(bench.root / "pvc/data" / name)]
    command += ["--adapter", str(adapter)] if adapter else []
    command += [] if WORKLOADS[name].choices else ["--chat"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = os.environ | offline | {"HF_HOME": str(bench.root / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    answers: list[Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def measured(action: Callable[[], Any]) -> tuple[Any, Times]:
    """Result of an action that starts processes, and their wall and processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result, wall = timed(action)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _answer(answers: list[dict[str, Any]], workload: Workload) -> Any:
    """Text of an item's answer, or the score of its choice."""
    return next(iter(answers[0]["scores"].values())) if workload.choices else answers[0]["text"]


def measure(bench: Bench, artifact: Any, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Alternating runs of both; wall and processor seconds, and the share of answers that are the same."""
    adapter = bench.root / "pvc" / artifact.uri.removeprefix("pvc://")
    workload = WORKLOADS[name]
    items = round(options.items * workload.share)
    define_task(bench, name, items)
    ours: list[Times] = []
    theirs: dict[int, list[Times]] = {batch: [] for batch in options.batch}
    same: list[bool] = []
    for _ in range(options.repeats):
        answers, times = measured(lambda: by_stage(bench, artifact, name))
        ours.append(times)
        for batch in options.batch:
            found, times = measured(
                lambda batch=batch: [by_harness(bench, name, part, batch) for part in (adapter, None)]
            )
            theirs[batch].append(times)
            for side, other in zip(SIDES, found, strict=True):
                same += [one == two for one, two in zip(answers[side], other, strict=True)]
    return {
        "words": workload.words,
        "items": items,
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


def find_model() -> Path:
    """Folder of SmolLM2-135M-Instruct, which is made on first use."""
    found = subprocess.run(
        [sys.executable, "-c", "from tunesmith_images.model import ensure_model; print(ensure_model())"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "e2e/images/src")},
    )
    return Path(found.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of the model; by default SmolLM2-135M-Instruct")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=1)
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
    model = options.model or find_model()
    with tempfile.TemporaryDirectory() as root:
        bench = lay_out(Path(root), model)
        artifact = train_adapter(bench)
        found = {name: measure(bench, artifact, name, options) for name in options.workload}
    result = {
        "machine": machine(),
        "model": options.model.name if options.model else "SmolLM2-135M-Instruct",
        "loadAverage": [load, os.getloadavg()[0]],
        "newTokens": NEW_TOKENS,
        "repeats": options.repeats,
        "workloads": found,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
