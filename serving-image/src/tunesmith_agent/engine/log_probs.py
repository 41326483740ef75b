"""Log-probabilities of probes from vLLM, one continuation token at a time.

``prompt_logprobs`` would need one short request, but such a request in one batch with any other kills vLLM's
engine on CPUs (0.32.0: ``add_lora_logits`` takes one adapter index per request for one row per token).
So each token is requested as the one generated after the tokens before it, by an ordinary request.
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
            values[index, position] = float(choice["logprobs"]["top_logprobs"][0][f"token_id:{token}"])
    return [
        [values[index, position] for position in range(probe.prompt_length, len(probe.token_ids))]
        for index, probe in enumerate(probes)
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
