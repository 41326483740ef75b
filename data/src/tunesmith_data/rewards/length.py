"""An answer that is neither too short nor too long."""

from collections.abc import Collection

from tunesmith_contract.methods import LengthReward

from .reward_function import Batch, Scorer


def build_length(spec: LengthReward, special_ids: Collection[int]) -> Scorer:
    """1 between the limits, falling linearly to 0 at no token and at twice the upper limit.

    Args:
        spec: the limits, in tokens.
        special_ids: tokens that are no part of an answer, such as the one that ends it.
    """
    special = frozenset(special_ids)

    def score(batch: Batch) -> list[float]:
        lengths = [sum(token not in special for token in ids) for ids in batch.token_ids]
        return [length_score(length, spec) for length in lengths]

    return score


def length_score(length: int, spec: LengthReward) -> float:
    """What an answer of so many tokens is worth."""
    if length < spec.min_tokens:
        return length / spec.min_tokens
    return min(1.0, max(0.0, 2 - length / spec.max_tokens))
