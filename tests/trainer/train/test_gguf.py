"""A real language model, tuned and written as GGUF, answers questions that it was not trained on, in llama.cpp."""

import json
from pathlib import Path
from typing import Any

import xllamacpp

from tunesmith_contract.report import RunReport, parse_report
from tunesmith_images.model import ensure_model

DATA = Path(__file__).parents[3] / "examples/quickstart/data"
HELD_OUT = 20
#: Four in five: the quickstart's adapter, trained for longer, answers nearly all.
AT_LEAST = 16


def test_the_gguf_answers_held_out_items(world: Any) -> None:
    (world.data / "model").symlink_to(ensure_model())
    rows = [json.loads(line) for line in (DATA / "train.jsonl").read_text().splitlines()]
    model = {"baseModel": "pvc://data/model"}
    config = world.prepare_config(
        world.write_rows("train.jsonl", rows), **model, validation={}, formats=["GGUF"]
    )
    prepared = world.prepare(config)
    numbers = {"maxSteps": 45, "batchSize": 4, "microBatchSize": 4, "learningRate": 1e-3, "warmupRatio": 0.1}
    adapter = {"rank": 16, "alpha": 32}
    config = world.train_config(
        prepared, **model, adapter=adapter, hyperparameters=numbers, formats=["Adapter", "GGUF"]
    )
    report = _train(world, config)
    assert report.training
    (export,) = report.training.exports
    answers = _ask(world.output / "sha256" / export.artifact.digest.removeprefix("sha256:"))
    assert sum(answers) >= AT_LEAST


def _train(world: Any, config: Any) -> RunReport:
    """On both cores, in a process of its own."""
    pod = world.start(config, OMP_NUM_THREADS="2")
    log, _ = pod.communicate(timeout=900)
    report = parse_report((world.root / "log").read_bytes())
    assert pod.returncode == 0, log
    assert report
    return report


def _ask(folder: Path) -> list[bool]:
    """Which of the held-out items are answered word by word."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 256, 1, 2
    server = xllamacpp.Server(parameters)
    right = []
    for line in (DATA / "test.jsonl").read_text().splitlines()[:HELD_OUT]:
        *question, expected = json.loads(line)["messages"]
        answer = server.handle_chat_completions({"messages": question, "temperature": 0, "max_tokens": 48})
        right.append(answer["choices"][0]["message"]["content"].strip() == expected["content"])
    return right
