"""Reading vLLM's ``prompt_logprobs``."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.artifact import Probe


def mean_log_prob(prompt_log_probs: Sequence[Mapping[str, Any] | None], probe: Probe) -> float:
    """Mean over the continuation's tokens, nats per token.

    Args:
        prompt_log_probs: one entry per token, ``None`` for the first; entry ``i`` maps the token's id, as a
            string, to ``{"logprob": log p(token i | tokens before i)}``. Other tokens may be in it too.

    Raises:
        KeyError, IndexError, TypeError: an entry is missing.
    """
    entries = [
        (prompt_log_probs[position], token)
        for position, token in enumerate(probe.token_ids)
        if position >= probe.prompt_length
    ]
    values = [float(entry[str(token)]["logprob"]) for entry, token in entries if entry is not None]
    if len(values) != len(entries) or not values:
        raise IndexError("an entry of the continuation is missing")
    return sum(values) / len(values)
