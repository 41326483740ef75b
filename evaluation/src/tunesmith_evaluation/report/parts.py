"""Parts of the report document, from the comparison of all sides and the verdict on it."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from tunesmith_contract.evaluation import Gate, Tier
from tunesmith_contract.shared_rules.result_text import describe_margin
from tunesmith_contract.shared_rules.verdict import ComparisonVerdict, Verdict
from tunesmith_evaluation.comparison.compare_metrics import MetricComparison

from .document import (
    MAX_SLICES,
    MAX_WORST_ITEMS,
    GateReport,
    MetricReport,
    SideScore,
    SliceReport,
    VerdictReport,
    WorstItem,
)

#: Reasons of the operator's conditions, too.
_REASONS = {Verdict.PASS: "Passed", Verdict.FAIL: "NotPassed", Verdict.INCONCLUSIVE: "Inconclusive"}
_BEGINNINGS = {
    Verdict.PASS: "All blocking gates hold",
    Verdict.FAIL: "Not all blocking gates hold",
    Verdict.INCONCLUSIVE: "The items do not decide",
}


def describe_metric(
    comparison: MetricComparison,
    sides: Sequence[str],
    confidence: float,
    *,
    unit: str = "",
    version: str = "",
) -> MetricReport:
    """Result of a metric.

    Args:
        comparison: the comparison.
        sides: names of all sides, in the order of the scores.
        confidence: confidence level of the intervals.
        unit: unit of the scores; empty for scores from 0 to 1.
        version: version of the scorer.
    """
    compared, outcomes = comparison.comparison, comparison.outcomes
    return MetricReport(
        suite=comparison.scores.suite,
        metric=comparison.scores.metric,
        version=version,
        higher_is_better=comparison.scores.higher_is_better,
        unit=unit,
        items=compared.items,
        groups=compared.groups if comparison.scores.groups is not None else 0,
        confidence=confidence,
        scores=tuple(
            SideScore(side=side, score=score) for side, score in zip(sides, comparison.sides, strict=True)
        ),
        delta=compared.delta if compared.items else None,
        p_value=compared.p_value if compared.items else None,
        wins=outcomes.wins,
        losses=outcomes.losses,
        ties=outcomes.ties,
    )


def describe_slices(comparisons: Sequence[MetricComparison]) -> tuple[SliceReport, ...]:
    """Slices of all metrics that hold items, at most MAX_SLICES."""
    slices = (
        SliceReport(
            suite=comparison.scores.suite,
            metric=comparison.scores.metric,
            column=part.column,
            value=part.value,
            items=part.comparison.items,
            delta=part.comparison.delta,
        )
        for comparison in comparisons
        for part in comparison.slices
        if part.comparison.items
    )
    return tuple(part for part, _ in zip(slices, range(MAX_SLICES), strict=False))


def describe_gates(gates: Sequence[Gate], judged: ComparisonVerdict) -> tuple[GateReport, ...]:
    """All gates with their results, in their order."""
    return tuple(
        GateReport(
            suite=gate.suite,
            metric=gate.metric,
            expect=gate.expect,
            margin=describe_margin(gate.margin, gate.relative_margin, gate.floor),
            threshold=result.evidence.threshold if result.evidence.items else None,
            tier=gate.tier,
            verdict=result.verdict,
            p_pass=result.evidence.p_pass,
            p_fail=result.evidence.p_fail,
            p_fail_corrected=result.corrected_p_fail,
            reason=str(result.evidence.problem or ""),
            # Beside Pass and Fail there are the p-values alone, which the report shows anyway.
            message=_sentence(result.reason) if result.verdict is Verdict.INCONCLUSIVE else "",
            more_items=result.evidence.more_items,
        )
        for gate, result in zip(gates, judged.gates, strict=True)
    )


def describe_verdict(gates: Sequence[Gate], judged: ComparisonVerdict) -> VerdictReport:
    """Verdict with its reason and the gates it follows from."""
    decisive = [
        f"{gate.suite}/{gate.metric} {gate.expect}: {result.reason}"
        for gate, result in zip(gates, judged.gates, strict=True)
        if gate.tier is Tier.BLOCKING and result.verdict is judged.verdict
    ]
    return VerdictReport(
        verdict=judged.verdict,
        reason=_REASONS[judged.verdict],
        message=f"{_BEGINNINGS[judged.verdict]}: {'; '.join(decisive) or 'no gate blocks'}.",
    )


class WorstItems:
    """The items on which the candidate lost most, of any number of items in bounded memory.

    Attributes:
        total: number of items on which it lost.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[float, int, WorstItem]] = []
        self._order = count(0, -1)
        self.total = 0

    def add(self, loss: float, describe: Callable[[], WorstItem]) -> None:
        """Count an item, and keep it if it is among the worst; of equal losses the first ones are kept.

        Args:
            loss: how much worse the candidate's score is; nothing happens unless it is positive.
            describe: makes the item's entry; called only for an item that is kept.
        """
        if not loss > 0:
            return
        self.total += 1
        order = next(self._order)
        if len(self._kept) < MAX_WORST_ITEMS:
            heapq.heappush(self._kept, (loss, order, describe()))
        elif (loss, order) > self._kept[0][:2]:
            heapq.heapreplace(self._kept, (loss, order, describe()))

    def __iter__(self) -> Iterator[WorstItem]:
        """The kept items, the greatest losses first."""
        return (item for _, _, item in sorted(self._kept, key=lambda entry: entry[:2], reverse=True))


def _sentence(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:].rstrip(".") + "."
