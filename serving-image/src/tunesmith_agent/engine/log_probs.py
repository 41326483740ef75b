"""Log-probability of a probe from vLLM, one continuation token at a time.

``prompt_logprobs`` would need one short request, but such a request in one batch with any other kills vLLM's
engine on CPUs (0.32.0: ``add_lora_logits`` takes one adapter index per request for one row per token).
So each token is requested as the one generated after the tokens before it, by an ordinary request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.artifact import Probe

#: vLLM accepts no more ``logprob_token_ids`` in one request.
MAX_TOKEN_IDS = 128


def build_requests(model: str, probe: Probe) -> list[dict[str, object]]:
    """Bodies for ``/v1/completions``, to be sent one after the other; together they cover every token.

    The longest prompt goes first and alone, so that the prefix cache serves the others.
    """
    positions = _positions(probe)
    groups = [positions[start : start + MAX_TOKEN_IDS] for start in range(1, len(positions), MAX_TOKEN_IDS)]
    return [_build_request(model, probe, group) for group in (positions[:1], *groups)]


def mean_log_prob(answers: Sequence[Mapping[str, Any]], probe: Probe) -> float:
    """Mean over the continuation's tokens, nats per token, from the answers to ``build_requests``.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the answers do not match the requests.
    """
    choices = [
        choice
        for answer in answers
        for choice in sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    ]
    values = [
        float(choice["logprobs"]["top_logprobs"][0][f"token_id:{probe.token_ids[position]}"])
        for position, choice in zip(_positions(probe), choices, strict=True)
    ]
    return sum(values) / len(values)


def _positions(probe: Probe) -> range:
    """Positions of the continuation's tokens, the last one first."""
    return range(len(probe.token_ids) - 1, probe.prompt_length - 1, -1)


def _build_request(model: str, probe: Probe, positions: Sequence[int]) -> dict[str, object]:
    return {
        "model": model,
        "prompt": [list(probe.token_ids[:position]) for position in positions],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": sorted({probe.token_ids[position] for position in positions}),
        "return_tokens_as_token_ids": True,
    }
