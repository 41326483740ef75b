"""Answers of the sides of one model by vLLM, with all adapters at once."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tunesmith_contract.engine_order import ENGINE_PORT
from tunesmith_contract.evaluation import Engine
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import load_config
from tunesmith_evaluation.items.requests import Reply, Request
from tunesmith_evaluation.metrics.answers import Answer, Likelihood
from tunesmith_evaluation.models.decoding import AnswerEnd, find_answer_end
from tunesmith_evaluation.models.encoding import EncodedRequest
from tunesmith_evaluation.models.generation import AnswerText
from tunesmith_evaluation.models.group_answerer import GroupAnswerer
from tunesmith_evaluation.models.likelihood import EncodedAnswer
from tunesmith_evaluation.models.replies import build_reply
from tunesmith_evaluation.models.sides import ModelGroup

from .engine_process import EngineProcess

#: Name under which the engine serves the model without an adapter.
BASE = "base"

#: Requests on their way at the same time: vLLM batches them. On a CPU more of them are no faster.
CPU_REQUESTS, GPU_REQUESTS = 8, 256

#: Ranks for which vLLM has kernels.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

#: Length of the context is rounded up, so that a few more tokens start no other engine.
LENGTH_STEP = 128

#: Seeds of vLLM have 64 bits with sign.
MAX_SEED = 2**63 - 1


class VLLMAnswerer(GroupAnswerer):
    """Answerer of the sides of one model, which an engine beside this process serves.

    Args:
        group: the model and its adapters. Their folders are the same in the engine's container.
        engine: the engine.
        gpus: number of GPUs of the engine; 0: it runs on CPUs.
    """

    engine = Engine.VLLM

    def __init__(self, group: ModelGroup, engine: EngineProcess, gpus: int) -> None:
        super().__init__(group, gpus)
        self._engine = engine

    @cached_property
    def _end(self) -> AnswerEnd:
        try:
            configuration = GenerationConfig.from_pretrained(self._group.folder, local_files_only=True)
        except OSError:
            configuration = GenerationConfig.from_model_config(
                load_config(self._group.folder, self._group.name)
            )
        return find_answer_end(configuration, self._tokenizer)

    @cached_property
    def _text(self) -> AnswerText:
        return AnswerText(self._tokenizer, self._end)

    def _answer_encoded(self, encoded: Sequence[EncodedRequest]) -> Iterator[Sequence[Reply]]:
        with self._serving(encoded):
            # On CPUs vLLM 0.32 dies of a request for likelihoods that shares a batch with others.
            together = []
            for one in encoded:
                if one.expected is not None and not self._gpus:
                    yield [self._ask(one)]
                else:
                    together.append(one)
            yield from self._ask_all(together)

    @contextmanager
    def _serving(self, encoded: Sequence[EncodedRequest]) -> Iterator[None]:
        """The engine with the model and its adapters."""
        longest = max(_length(one) for one in encoded)
        self._engine.start(engine_arguments(self._group, longest, self._gpus, self._engine.port))
        try:
            for side, folder in self._group.adapters.items():
                self._engine.load_adapter(side, folder)
            yield
        finally:
            self._engine.stop()

    def _ask_all(self, encoded: Sequence[EncodedRequest]) -> Iterator[list[Reply]]:
        """Replies in the order in which they come in."""
        waiting = iter(encoded)
        running: set[Future[Reply]] = set()
        size = GPU_REQUESTS if self._gpus else CPU_REQUESTS
        pool = ThreadPoolExecutor(size)
        try:
            while True:
                while len(running) < size and (one := next(waiting, None)) is not None:
                    running.add(pool.submit(self._ask, one))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield [future.result() for future in done]
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, encoded: EncodedRequest) -> Reply:
        likelihood = None if encoded.expected is None else self._measure(encoded.request, encoded.expected)
        if encoded.prompt is None:
            return Reply(
                encoded.request, Answer("", likelihood=likelihood), prompt_tokens=encoded.prompt_tokens
            )
        started = time.monotonic()
        answer = self._engine.complete(self._generation_body(encoded))
        seconds = time.monotonic() - started
        ids = answer["choices"][0]["token_ids"]
        generated = replace(self._text.read(ids, encoded.request.decoding), seconds=seconds)
        return build_reply(self._tokenizer, encoded, generated, likelihood)

    def _generation_body(self, encoded: EncodedRequest) -> dict[str, Any]:
        """Body of a request: every parameter of decoding is written, so that none is a default of the engine's."""
        assert encoded.prompt is not None
        decoding = encoded.request.decoding
        strings = [*decoding.stop, *self._end.strings]
        return {
            "model": self._model_name(encoded.request),
            "prompt": encoded.prompt.ids,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": encoded.prompt.seed % MAX_SEED,
            "stop_token_ids": list(self._end.tokens),
            "return_token_ids": True,
            **({"stop": strings, "include_stop_str_in_output": True} if strings else {}),
        }

    def _measure(self, request: Request, expected: EncodedAnswer) -> Likelihood:
        """Likelihood of an expected answer, from the probabilities of the prompt's tokens."""
        body = {
            "model": self._model_name(request),
            "prompt": expected.ids,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        probabilities = self._engine.complete(body)["choices"][0]["prompt_logprobs"]
        tokens = zip(expected.ids[expected.start :], probabilities[expected.start :], strict=True)
        return Likelihood(
            sum(float(found[str(token)]["logprob"]) for token, found in tokens), expected.length
        )

    def _model_name(self, request: Request) -> str:
        return request.side if request.side in self._group.adapters else BASE


def engine_arguments(group: ModelGroup, longest: int, gpus: int, port: int = ENGINE_PORT) -> list[str]:
    """Arguments of vLLM's server for a model with its adapters.

    Args:
        group: the model.
        longest: tokens of the longest prompt with its answer.
        gpus: number of GPUs; 0: CPUs.
        port: port on the loopback address.

    Raises:
        UserError: the rank of an adapter is larger than vLLM has kernels for.
    """
    arguments = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--api-server-count": "1",
        "--model": str(group.folder),
        "--served-model-name": BASE,
        # The model's own defaults of decoding are left out.
        "--generation-config": "vllm",
        "--max-model-len": str(-(-(longest + 1) // LENGTH_STEP) * LENGTH_STEP),
        "--dtype": "bfloat16" if gpus else "float32",
    }
    if gpus:
        arguments["--tensor-parallel-size"] = str(gpus)
    else:
        arguments |= {"--max-num-seqs": str(CPU_REQUESTS), "--block-size": "32"}
    switches = [] if gpus else ["--enforce-eager"]
    if group.adapters:
        # One slot more than adapters: on CPUs vLLM 0.32 answers for the base model by what is in the last slot.
        slots = len(group.adapters) + 1
        arguments |= {
            "--max-loras": str(slots),
            "--max-cpu-loras": str(slots),
            "--max-lora-rank": str(_rank_limit(group)),
        }
        switches.append("--enable-lora")
    return [part for pair in arguments.items() for part in pair] + switches


def _rank_limit(group: ModelGroup) -> int:
    """Least rank that vLLM has kernels for and that all adapters have room in."""
    largest = max(_rank(folder) for folder in group.adapters.values())
    for rank in RANKS:
        if largest <= rank:
            return rank
    message = f"an adapter has rank {largest}, and vLLM serves up to {RANKS[-1]}: write engine: Transformers"
    raise UserError("EngineRefused", message)


def _rank(folder: Path) -> int:
    """Largest rank of an adapter's layers."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    patterns = config.get("rank_pattern") or {}
    return int(max([config["r"], *patterns.values()]))


def _length(encoded: EncodedRequest) -> int:
    """Tokens of the prompt with the longest answer."""
    generated = (
        len(encoded.prompt.ids) + encoded.request.decoding.max_new_tokens if encoded.prompt is not None else 0
    )
    return max(generated, len(encoded.expected.ids) + 1 if encoded.expected is not None else 0)
