"""Log-probabilities of probes from vLLM: one continuation token at a time, or those of whole prompts.

``prompt_logprobs`` would need one short request, but such a request in one batch with any other kills vLLM's
engine on CPUs (0.32.0: ``add_lora_logits`` takes one adapter index per request for one row per token).
So each token is requested as the one generated after the tokens before it, by an ordinary request. Engines that do not
know ``logprob_token_ids`` (0.19, the newest for CUDA 12, on GPUs alone) are asked for whole prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith_contract.artifact import Probe

#: Prompts of one request: clients wait for no more of them. vLLM accepts no more than 128 ``logprob_token_ids``.
MAX_PROMPTS = 32

#: Index of a probe, and position of one of its continuation's tokens.
Position = tuple[int, int]


def build_requests(model: str, probes: Sequence[Probe], cache_salt: str) -> list[dict[str, object]]:
    """Bodies for ``/v1/completions``, to be sent one after the other; together they cover every token.

    Args:
        model: name of the model in the engine.
        probes: the probes.
        cache_salt: the engine's prefix cache serves only requests with the same value, so that a second measurement is
            computed anew.
    """
    return [_build_request(model, probes, group, cache_salt) for group in _groups(probes)]


def parse_log_probs(answers: Sequence[Mapping[str, Any]], probes: Sequence[Probe]) -> list[list[float]]:
    """Log-probabilities of each probe's continuation, in nats, from the answers to ``build_requests``.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the answers do not match the requests.
    """
    values: dict[Position, float] = {}
    for group, answer in zip(_groups(probes), answers, strict=True):
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        for (index, position), choice in zip(group, choices, strict=True):
            token = probes[index].token_ids[position]
            values[index, position] = float(choice["logprobs"]["top_logprobs"][0][_token_name(token)])
    return [
        [values[index, position] for position in range(probe.prompt_length, len(probe.token_ids))]
        for index, probe in enumerate(probes)
    ]


def ignores_token_ids(request: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """True if the answer lacks a token that its request of ``build_requests`` names: the field is not known.

    Raises:
        KeyError, IndexError, TypeError: the answer has no log-probabilities at all.
    """
    named = {_token_name(token) for token in request["logprob_token_ids"]}
    return not named <= answer["choices"][0]["logprobs"]["top_logprobs"][0].keys()


def build_prompt_requests(model: str, probes: Sequence[Probe], cache_salt: str) -> list[dict[str, object]]:
    """Bodies for ``/v1/completions`` that ask for the log-probabilities of whole probes as prompts."""
    return [
        {
            "model": model,
            "prompt": [list(probe.token_ids) for probe in probes[start : start + MAX_PROMPTS]],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "cache_salt": cache_salt,
        }
        for start in range(0, len(probes), MAX_PROMPTS)
    ]


def parse_prompt_log_probs(
    answers: Sequence[Mapping[str, Any]], probes: Sequence[Probe]
) -> list[list[float]]:
    """Log-probabilities of each probe's continuation, in nats, from the answers to ``build_prompt_requests``.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the answers do not match the requests.
    """
    choices = [
        choice
        for answer in answers
        for choice in sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    ]
    return [
        [
            float(choice["prompt_logprobs"][position][str(probe.token_ids[position])]["logprob"])
            for position in range(probe.prompt_length, len(probe.token_ids))
        ]
        for probe, choice in zip(probes, choices, strict=True)
    ]


def _groups(probes: Sequence[Probe]) -> Iterator[list[Position]]:
    """Positions by request: first the longest prompt of each probe, so that the prefix cache serves its others."""
    last = [(index, len(probe.token_ids) - 1) for index, probe in enumerate(probes)]
    others = [
        (index, position)
        for index, probe in enumerate(probes)
        for position in range(len(probe.token_ids) - 2, probe.prompt_length - 1, -1)
    ]
    for positions in (last, others):
        for start in range(0, len(positions), MAX_PROMPTS):
            yield positions[start : start + MAX_PROMPTS]


def _build_request(
    model: str, probes: Sequence[Probe], positions: Sequence[Position], cache_salt: str
) -> dict[str, object]:
    return {
        "model": model,
        "prompt": [list(probes[index].token_ids[:position]) for index, position in positions],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": sorted({probes[index].token_ids[position] for index, position in positions}),
        "return_tokens_as_token_ids": True,
        "cache_salt": cache_salt,
    }


def _token_name(token: int) -> str:
    return f"token_id:{token}"
