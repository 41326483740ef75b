"""A probe's log-probability, asked of vLLM one continuation token at a time.

``prompt_logprobs`` would take one short request, but such a request in one batch with any other kills vLLM's
engine on CPUs (0.32.0: ``add_lora_logits`` takes one adapter index per request for one row per token).
So each token is the one that the engine would generate after those before it: an ordinary request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.artifact import Probe

#: vLLM takes no more ``logprob_token_ids`` in one request.
MAX_TOKENS_ASKED = 128


def build_requests(model: str, probe: Probe) -> list[dict[str, object]]:
    """Bodies for ``/v1/completions``; together they ask for every token of the continuation.

    The longest prompt comes first, so that the others find its beginning in the prefix cache.
    """
    positions = range(len(probe.token_ids) - 1, probe.prompt_length - 1, -1)
    groups = [
        positions[start : start + MAX_TOKENS_ASKED] for start in range(0, len(positions), MAX_TOKENS_ASKED)
    ]
    return [
        {
            "model": model,
            "prompt": [list(probe.token_ids[:position]) for position in group],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "logprob_token_ids": sorted({probe.token_ids[position] for position in group}),
            "return_tokens_as_token_ids": True,
        }
        for group in groups
    ]


def mean_log_prob(answers: Sequence[Mapping[str, Any]], probe: Probe) -> float:
    """Mean over the continuation's tokens, nats per token, from the answers to ``build_requests``.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the answers are not of the shape that was asked for.
    """
    positions = range(len(probe.token_ids) - 1, probe.prompt_length - 1, -1)
    choices = [
        choice
        for answer in answers
        for choice in sorted(answer["choices"], key=lambda choice: choice["index"])
    ]
    total = 0.0
    for position, choice in zip(positions, choices, strict=True):
        total += float(choice["logprobs"]["top_logprobs"][0][f"token_id:{probe.token_ids[position]}"])
    return total / len(positions)
