"""Evidence on the gates of a comparison, and the words for verdicts."""

from enum import StrEnum

from pydantic import Field

from .base import Report


class Verdict(StrEnum):
    """Result of a gate or of a comparison."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class Tier(StrEnum):
    """Weight of a gate: Advisory gates are reported and decide nothing."""

    BLOCKING = "Blocking"
    ADVISORY = "Advisory"


class Problem(StrEnum):
    """Cause for which a gate can't pass, whatever its p-values."""

    MISSING = "Missing"
    SKIPPED = "Skipped"
    TOO_FEW_ITEMS = "TooFewItems"
    TOO_MANY_BROKEN = "TooManyBroken"


class Evidence(Report):
    """Evidence on one gate, from the pod that compared the sides.

    Attributes:
        items: items that were compared.
        p_pass: p-value of the hypothesis that the true difference is at most the gate's threshold; small values speak
            for Pass. None if nothing was compared.
        p_fail: p-value of the hypothesis that the true difference is at least the threshold; small values speak for
            Fail. None if nothing was compared.
        problem: cause for which the gate can't pass.
        more_items: estimated number of further items with which the gate would be decided with probability 0.8, if the
            differences are as those observed; None if the difference is as good as the threshold.
    """

    items: int = Field(ge=0)
    p_pass: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    p_fail: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    problem: Problem | None = None
    more_items: int | None = Field(None, ge=0)
