"""Answers by the real vLLM on a CPU, compared with those of transformers."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny_models import make_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tunesmith_contract.evaluation import Decoding
from tunesmith_evaluation.answering.engine_process import EngineProcess
from tunesmith_evaluation.answering.interface import Answerer
from tunesmith_evaluation.answering.vllm import VLLMAnswerer
from tunesmith_evaluation.items.requests import Problem, Prompt, Reply, Request
from tunesmith_evaluation.models.sides import ModelGroup
from tunesmith_evaluation.models.transformers_answerer import TransformersAnswerer

ENGINE_PYTHON = os.environ.get("TUNESMITH_ENGINE_PYTHON", "")
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TORCH_COMPILE_DISABLE": "1",
}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(600),
]

WORDS = ("sort", "low", "high", "12", "345", "the smallest of")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """The engine's container as a process, and its client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    orders = folder / "orders"
    orders.mkdir()
    environment = {**os.environ, **ENVIRONMENT}
    command = [ENGINE_PYTHON, "-m", "tunesmith_engine.on_order", str(orders)]
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        yield EngineProcess(orders, port)
        process.terminate()
        assert process.wait(60) == 0


def make_adapter(folder: Path, model: Path, seed: int) -> Path:
    """An adapter with large random weights, so that its answers are others than the model's."""
    causal: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(causal.from_pretrained(model), config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def group(folder: Path) -> ModelGroup:
    model = make_model(folder / "model", "qwen3", WORDS)
    adapters = {name: make_adapter(folder / name, model, seed) for seed, name in enumerate(("one", "two"))}
    return ModelGroup(model, "r1", ("base-side", "one", "two"), adapters, {})


def make_request(side: str, text: str, **members: Any) -> Request:
    prompt = Prompt(messages=({"role": "user", "content": text},))
    decoding = Decoding(max_new_tokens=12, stop=("zz",))
    return Request(side, "task", f"sha256:{text}", 0, prompt, decoding, **({"seed": 1} | members))


def ask(answerer: Answerer, requests: list[Request]) -> dict[tuple[str, str, bool], Reply]:
    replies = [reply for batch in answerer.answer(requests) for reply in batch]
    return {(reply.request.side, reply.request.item, reply.request.generates): reply for reply in replies}


def test_answers_are_those_of_transformers(engine: EngineProcess, group: ModelGroup) -> None:
    texts = [f"sort {number} {number * 7 % 5}" for number in range(6)]
    requests = [make_request(side, text) for side in group.sides for text in texts]
    requests += [make_request(side, texts[0], expected="low 12", generates=False) for side in group.sides]
    requests.append(make_request("one", "sort " * 600))
    by_engine = ask(VLLMAnswerer(group, engine, 0), requests)
    by_transformers = ask(TransformersAnswerer(group, 0), requests)
    assert by_engine.keys() == by_transformers.keys()
    assert by_engine["one", f"sha256:{'sort ' * 600}", True].problem is Problem.TOO_LONG
    for place, expected in by_transformers.items():
        found = by_engine[place].answer
        if expected.answer is None or found is None:
            assert by_engine[place].problem is expected.problem
            continue
        assert found.raw == expected.answer.raw
        assert (found.truncated, found.answer_tokens) == (
            expected.answer.truncated,
            expected.answer.answer_tokens,
        )
        assert by_engine[place].prompt_tokens == expected.prompt_tokens
        if expected.answer.likelihood is not None:
            assert found.likelihood is not None
            assert found.likelihood.log_probability == pytest.approx(
                expected.answer.likelihood.log_probability, abs=1e-3
            )
    # The sides are different models: an engine that ignored the adapters would not pass.
    answers = {side: by_engine[side, f"sha256:{texts[0]}", True].answer for side in group.sides}
    assert len({answer.raw for answer in answers.values() if answer}) == 3
