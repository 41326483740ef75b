"""An answer that is the row's own, white space around it aside."""

from tunesmith_contract.methods import ExactReward

from .reward_function import Batch, Scorer


def build_exact(spec: ExactReward) -> Scorer:
    """1 where the answer is the row's, else 0."""

    def normal(text: str | None) -> str | None:
        stripped = text.strip() if text is not None else None
        return stripped.casefold() if stripped is not None and spec.ignore_case else stripped

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.texts, batch.answers, strict=True)
        return [float(normal(text) == normal(answer)) for text, answer in pairs]

    return score
