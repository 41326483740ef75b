"""GGUF export of a real language model: same answers in llama.cpp as in PyTorch.

`test_exports.py` shows it of a small one with the same architecture and tokenizer.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
import torch
import xllamacpp
from peft import PeftModel
from stages.stage_world import World
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.report import RunReport, parse_report
from tunesmith_contract.run_config import TrainConfig
from tunesmith_images.model import ensure_model

DATA = Path(__file__).parents[3] / "examples/quickstart/data"
#: Enough to change what the model says. Each step takes seconds.
FEW_STEPS = {"maxSteps": 3, "batchSize": 2, "microBatchSize": 2, "learningRate": 1e-3}
COMPARED = 5
COMPARED_TOKENS = 12
#: In log-probability. Weights of 16 bits choose another token where two are nearly as likely.
NEARLY_EQUAL, UNLIKE = 0.3, 1.0
#: Enough to answer what was held out. Four in five: the quickstart's adapter, trained for longer, answers nearly all.
MANY_STEPS = {"maxSteps": 45, "batchSize": 4, "microBatchSize": 4, "learningRate": 1e-3, "warmupRatio": 0.1}
HELD_OUT = 20
TRAINING_SECONDS = 900
AT_LEAST = 16


class Answer(NamedTuple):
    """An answer, and its tokens as they were chosen: the tokenizer could split the text otherwise."""

    text: str
    tokens: list[int]


@pytest.mark.long
@pytest.mark.timeout(TRAINING_SECONDS)
def test_the_gguf_says_what_the_tuned_model_says(world: World) -> None:
    folders = _tune(world, FEW_STEPS)
    tokenizer = AutoTokenizer.from_pretrained(ensure_model())
    base = AutoModelForCausalLM.from_pretrained(ensure_model(), dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(folders["Adapter"])).eval()
    questions = [question for question, _ in _held_out(COMPARED)]
    answers = _ask(folders["GGUF"], questions, COMPARED_TOKENS)
    pairs = list(zip(questions, answers, strict=True))
    assert median(_regret(tuned, tokenizer, *pair) for pair in pairs) < NEARLY_EQUAL
    with tuned.disable_adapter():
        assert median(_regret(tuned, tokenizer, *pair) for pair in pairs) > UNLIKE


@pytest.mark.long
@pytest.mark.timeout(2 * TRAINING_SECONDS)
def test_the_gguf_answers_held_out_items(world: World) -> None:
    folders = _tune(world, MANY_STEPS)
    items = _held_out(HELD_OUT)
    answers = _ask(folders["GGUF"], [question for question, _ in items], max_tokens=48)
    right = [answer.text.strip() == expected for answer, (_, expected) in zip(answers, items, strict=True)]
    assert sum(right) >= AT_LEAST


def _held_out(count: int) -> list[tuple[list[dict[str, str]], str]]:
    """Questions that are not trained on, with their answers."""
    lines = (DATA / "test.jsonl").read_text().splitlines()[:count]
    messages = [json.loads(line)["messages"] for line in lines]
    return [(question, expected["content"]) for *question, expected in messages]


def _tune(world: World, numbers: dict[str, Any]) -> dict[str, Path]:
    """The folders of the artifacts by format."""
    (world.data / "model").symlink_to(ensure_model())
    rows = [json.loads(line) for line in (DATA / "train.jsonl").read_text().splitlines()]
    model = {"baseModel": "pvc://data/model"}
    prepared = world.prepare(
        world.prepare_config(world.write_rows("train.jsonl", rows), **model, validation={})
    )
    adapter = {"rank": 16, "alpha": 32}
    config = world.train_config(
        prepared, **model, adapter=adapter, hyperparameters=numbers, formats=["Adapter", "GGUF"]
    )
    training = _train(world, config).training
    assert training
    artifacts = {"Adapter": training.artifact} | {
        export.format: export.artifact for export in training.exports
    }
    return {
        name: world.output / "sha256" / artifact.digest.removeprefix("sha256:")
        for name, artifact in artifacts.items()
    }


def _train(world: World, config: TrainConfig) -> RunReport:
    """In a process of its own."""
    pod = world.start(config)
    log, _ = pod.communicate(timeout=TRAINING_SECONDS)
    report = parse_report((world.root / "log").read_bytes())
    assert pod.returncode == 0, log
    assert report
    return report


def _regret(model: Any, tokenizer: Any, question: list[dict[str, str]], answer: Answer) -> float:
    """How much likelier than a token of the answer another one was at most, by logarithm, to a model in PyTorch."""
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([before + answer.tokens])).logits[0, len(before) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
    return float((logits.max(dim=1).values - chosen).max())


def _ask(folder: Path, questions: list[list[dict[str, str]]], max_tokens: int) -> list[Answer]:
    """The likeliest answers, in llama.cpp."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 256, 1, 1
    server = xllamacpp.Server(parameters)
    settings = {"temperature": 0, "max_tokens": max_tokens, "logprobs": True}
    answers = []
    for question in questions:
        [choice] = server.handle_chat_completions({"messages": question, **settings})["choices"]
        tokens = [each["id"] for each in choice["logprobs"]["content"]]
        answers.append(Answer(choice["message"]["content"], tokens))
    return answers
