"""Evidence on gates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from tunesmith_contract.evaluation import Expect, Gate, Tier
from tunesmith_contract.report import GateEvidence, GateProblem
from tunesmith_contract.safety import SAFETY_SUITES
from tunesmith_contract.shared_rules.verdict import largest_margin, one_sided_level

from .pairs import Pairs, Threshold

#: Power for which further items are counted.
POWER = 0.8
#: Items beyond which a difference counts as being as good as the margin.
_MOST_ITEMS = 1_000_000
#: Confidence with which a relative margin is known to be above or below its floor.
_FLOOR_CONFIDENCE = 0.999
#: Share by which two equal margins may differ after rounding.
_ROUNDING = 1e-9


def judge_gate(
    pairs: Pairs,
    gate: Gate,
    confidence: float,
    *,
    broken: float,
    max_broken: float,
    higher_is_better: bool = True,
) -> GateEvidence:
    """Evidence on one gate.

    Where the margin is too large to count (`largest_margin`), p_pass is that of a gain. The margins of the built-in
    safety suites always count: of a base model that refuses nothing, nothing can get worse, and people did not choose
    the suite to show a loss of their own.

    Args:
        pairs: the scores.
        gate: the gate.
        confidence: confidence level of two-sided intervals; each test has the level (1 - confidence) / 2.
        broken: share of the suite's items without a score of some side.
        max_broken: largest share with which the gate can pass.
        higher_is_better: False where small values are good, such as of perplexity and latency.
    """
    level = one_sided_level(confidence)
    thresholds = _thresholds(pairs, gate, higher_is_better)
    gains = [_Gain(pairs, threshold, higher_is_better) for threshold in thresholds]
    baseline = pairs.values[1]
    threshold = max((threshold.offset + threshold.share * baseline for threshold in thresholds), key=abs)
    limit = _exceeded_limit(pairs, gate, threshold, higher_is_better)
    # A gain is above each threshold of a loss.
    counts = limit is None or gate.suite in SAFETY_SUITES
    to_pass = gains if counts else [_Gain(pairs, Threshold(), higher_is_better)]
    p_pass, p_fail = max(gain.p_pass() for gain in to_pass), max(gain.p_fail() for gain in gains)
    more_items = _more_items(pairs, to_pass, gains, level) if min(p_pass, p_fail) > level else None
    missing = _missing_items(pairs, gate)
    problem = GateProblem.MARGIN_TOO_LARGE if not counts and p_pass > level else None
    if missing > 0:
        problem, more_items = GateProblem.TOO_FEW_ITEMS, max(more_items or 0, missing)
    if len(pairs.groups) < pairs.least_groups:
        p_pass = p_fail = 1.0
    if broken > max_broken:
        # More items would lack scores as well.
        problem, more_items = GateProblem.TOO_MANY_BROKEN, None
    return GateEvidence(
        items=pairs.items,
        threshold=threshold,
        p_pass=p_pass,
        p_fail=p_fail,
        more_items=more_items,
        problem=problem,
        is_blocking=gate.tier is Tier.BLOCKING,
        largest_margin=limit,
    )


class _Gain(NamedTuple):
    """Tests of what is gained by the candidate, whatever the direction of the metric is."""

    pairs: Pairs
    threshold: Threshold
    higher_is_better: bool

    def p_pass(self, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate gains no more than the threshold."""
        test = self.pairs.p_above if self.higher_is_better else self.pairs.p_below
        return test(self.threshold, scale)

    def p_fail(self, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate gains no less than the threshold."""
        test = self.pairs.p_below if self.higher_is_better else self.pairs.p_above
        return test(self.threshold, scale)


def _thresholds(pairs: Pairs, gate: Gate, higher_is_better: bool) -> list[Threshold]:
    """Thresholds that have to be passed together, and missed together.

    A relative margin is a share of the baseline's true value, which is known to some accuracy only. Where that leaves
    open which of share and floor is larger, both count.
    """
    sign = 1.0 if (gate.expect is Expect.BETTER) == higher_is_better else -1.0
    if gate.relative_margin is None:
        return [Threshold(offset=sign * gate.margin)]
    share, floor = Threshold(share=sign * gate.relative_margin), Threshold(offset=sign * gate.floor)
    if gate.floor == 0:
        return [share]
    _, low, high = pairs.baseline_interval(_FLOOR_CONFIDENCE)
    if gate.relative_margin * low >= gate.floor:
        return [share]
    return [floor] if gate.relative_margin * high <= gate.floor else [share, floor]


def _exceeded_limit(pairs: Pairs, gate: Gate, threshold: float, higher_is_better: bool) -> float | None:
    """Largest margin that counts, if the gate's is larger; else None."""
    if gate.expect is not Expect.NOT_WORSE:
        return None
    limit = largest_margin(pairs.values[1], pairs.score_range[0 if higher_is_better else 1])
    return limit if abs(threshold) > limit * (1 + _ROUNDING) else None


def _missing_items(pairs: Pairs, gate: Gate) -> int:
    """Items that are missing for the least number of independent ones: those of a group count once."""
    independent = min(len(pairs.groups), pairs.items)
    missing = max(pairs.least_groups, gate.min_items) - independent
    return int(np.ceil(missing * max(1.0, pairs.items / max(independent, 1))))


def _more_items(pairs: Pairs, to_pass: Sequence[_Gain], to_fail: Sequence[_Gain], level: float) -> int | None:
    """Further items with which the gate would be decided with the power `POWER`, by the likelier verdict.

    The observed differences are taken for the true ones, and their number is multiplied until the p-value is so far
    below the level that chance seldom lifts it above.
    """
    items = len(pairs.groups.codes)
    if not items:
        return None
    passing = max(gain.p_pass() for gain in to_pass) < max(gain.p_fail() for gain in to_fail)
    target = float(stats.norm.isf(level) + stats.norm.ppf(POWER))

    def missing(logarithm: float) -> float:
        scale = float(np.exp(logarithm))
        if passing:
            p_value = max(gain.p_pass(scale) for gain in to_pass)
        else:
            p_value = max(gain.p_fail(scale) for gain in to_fail)
        return target - float(stats.norm.isf(np.clip(p_value, 1e-300, 1 - 1e-16)))

    # A scale of exactly 1 would ask the exact tests, which are not comparable with those of larger samples.
    least, most = 1e-6, float(np.log(max(_MOST_ITEMS / items, 2)))
    if missing(most) > 0:
        return None
    if missing(least) <= 0:
        return 1
    scale = float(np.exp(optimize.brentq(missing, least, most, xtol=0.01)))
    return _rounded(items * (scale - 1))


def _rounded(number: float) -> int:
    """The number with two digits that count, rounded up."""
    unit: int = 10 ** max(0, int(np.floor(np.log10(max(number, 1)))) - 1)
    return max(1, int(np.ceil(number / unit)) * unit)
