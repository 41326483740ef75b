"""Log-probability of a probe by a model, computed token by token."""

from typing import Any

import torch

from tunesmith_contract.artifact import Probe


def mean_log_prob(model: Any, probe: Probe) -> float:
    """Mean log-probability of the continuation of a probe, in nats per token."""
    tokens, start = probe.token_ids, probe.prompt_length
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0].float(), dim=-1)
    values = [log_probs[index - 1, tokens[index]].item() for index in range(start, len(tokens))]
    return sum(values) / len(values)
