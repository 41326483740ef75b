"""Results of metrics and evidence on gates, from the scores of all sides."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith_contract.evaluation import Gate
from tunesmith_contract.report import GateEvidence, GateProblem, Interval, MetricResult
from tunesmith_contract.shared_rules.verdict import NOT_MEASURED
from tunesmith_evaluation.statistics.comparing import (
    Comparison,
    Outcomes,
    Pairing,
    compare,
    count_outcomes,
    measure_pairing,
)
from tunesmith_evaluation.statistics.gates import judge_gate
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.jackknife import jackknife_interval, pseudo_values, reach_of
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.statistics.means import bounded_mean
from tunesmith_evaluation.statistics.pairs import Pairs

from .metric_scores import MetricScores

Floats = NDArray[np.float64]

#: Slices of one column that are reported: those with the most items.
MAX_SLICES = 20


@dataclass(frozen=True, slots=True)
class SliceComparison:
    """Difference on the items with one value of a column. Slices are many and small: they decide nothing."""

    column: str
    value: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of one suite, compared.

    Attributes:
        scores: the scores of all sides.
        sides: value of each side over the items that it has a score for, with an interval.
        comparison: candidate and baseline.
        outcomes: items that the candidate won and lost.
        pairing: what pairing is worth; None for statistics of a whole corpus and fewer than two items.
        slices: differences by the values of the items' columns.
        slices_left_out: number of slices beyond the largest `MAX_SLICES` of each column.
    """

    scores: MetricScores
    sides: tuple[Interval, ...]
    comparison: Comparison
    outcomes: Outcomes
    pairing: Pairing | None
    slices: tuple[SliceComparison, ...]
    slices_left_out: int

    @property
    def result(self) -> MetricResult:
        """The result as it goes into the run's report."""
        return MetricResult(
            suite=self.scores.suite,
            metric=self.scores.metric,
            items=self.comparison.items,
            scores=self.sides,
            delta=self.comparison.delta,
            p_value=self.comparison.p_value,
        )


@dataclass(frozen=True, slots=True)
class ComparisonRules:
    """Rules of a comparison: everything that it depends on beside the scores.

    Attributes:
        confidence: confidence level of two-sided intervals; each gate's test has the level (1 - confidence) / 2.
        seed: seed of permutations.
        gates: the gates.
        max_broken: by name of a suite, the largest share of items without a score with which its gates can pass.
        skipped: suites that were skipped.
        beyond_budget: suite and metric for which a budget did not cover all requests.
        empty_baseline: suite and metric for which more than half of the baseline's answers are empty texts.
        same_models: candidate and baseline are one model, asked in the same way: no gate can pass or fail.
    """

    confidence: float
    seed: int
    gates: Sequence[Gate]
    max_broken: Mapping[str, float]
    skipped: Collection[str] = ()
    beyond_budget: Collection[tuple[str, str]] = ()
    empty_baseline: Collection[tuple[str, str]] = ()
    same_models: bool = False


def compare_metrics(
    metrics: Sequence[MetricScores], rules: ComparisonRules
) -> tuple[list[MetricComparison], list[GateEvidence]]:
    """Results of all metrics, and evidence on all gates in their order.

    Raises:
        ValueError: a score is outside its range.
    """
    pairs = {(scores.suite, scores.metric): scores.pairs(rules.seed) for scores in metrics}
    by_key = {(scores.suite, scores.metric): scores for scores in metrics}
    compared = [_compare(scores, pairs[key], rules) for key, scores in by_key.items()]
    evidence = []
    for gate in rules.gates:
        key = (gate.suite, gate.metric)
        if key in rules.beyond_budget and key not in by_key:
            evidence.append(NOT_MEASURED._replace(problem=GateProblem.BUDGET_EXHAUSTED))
        elif gate.suite in rules.skipped:
            evidence.append(NOT_MEASURED._replace(problem=GateProblem.SKIPPED))
        elif key in by_key and by_key[key].items:
            evidence.append(_judge(gate, by_key[key], pairs[key], rules))
        else:
            evidence.append(NOT_MEASURED)
    if rules.same_models:
        evidence = [found._replace(problem=found.problem or GateProblem.SAME_MODELS) for found in evidence]
    return compared, evidence


def _judge(gate: Gate, scores: MetricScores, pairs: Pairs, rules: ComparisonRules) -> GateEvidence:
    evidence = judge_gate(
        pairs,
        gate,
        rules.confidence,
        broken=scores.broken / scores.items,
        max_broken=0.0 if scores.hides_losses else rules.max_broken[gate.suite],
        higher_is_better=scores.higher_is_better,
    )
    if (gate.suite, gate.metric) in rules.beyond_budget:
        return evidence._replace(problem=GateProblem.BUDGET_EXHAUSTED, more_items=None)
    if (gate.suite, gate.metric) in rules.empty_baseline:
        # Beside broken items nothing can be said; a smaller problem is due to the empty answers.
        is_broken = evidence.problem is GateProblem.TOO_MANY_BROKEN
        problem = evidence.problem if is_broken else GateProblem.BASELINE_EMPTY
        return evidence._replace(problem=problem, more_items=None)
    return evidence


def _compare(scores: MetricScores, pairs: Pairs, rules: ComparisonRules) -> MetricComparison:
    candidate, baseline = scores.values[:2, ~np.isnan(scores.values[:2]).any(axis=0)]
    slices, left_out = _slices(scores, rules)
    return MetricComparison(
        scores=scores,
        sides=tuple(_side(scores, side, rules) for side in range(len(scores.values))),
        comparison=compare(pairs, rules.confidence),
        outcomes=count_outcomes(candidate, baseline, higher_is_better=scores.higher_is_better),
        pairing=measure_pairing(candidate, baseline)
        if scores.kind is not ScoreKind.CORPUS and len(candidate) > 1
        else None,
        slices=slices,
        slices_left_out=left_out,
    )


def _side(scores: MetricScores, side: int, rules: ComparisonRules) -> Interval:
    """Value of one side over the items that it has a score for."""
    known = ~np.isnan(scores.values[side])
    groups = Groups.of(scores.groups, scores.items).keep(known)
    upper = scores.upper_of(side)
    if upper is not None:
        values = scores.values[side, known]
        return bounded_mean(values, groups, rules.confidence, binary=scores.are_binary(values), upper=upper)
    if not known.any():
        return Interval(0.0, 0.0, 0.0)
    terms, statistic = scores.terms()
    sums = groups.sum(terms[side][known])
    value = float(statistic(sums.sum(axis=0)))
    largest, swings = (scores.corpus.upper, scores.corpus.swings) if scores.corpus else (None, None)
    reach = reach_of(sums, value, swings)
    return jackknife_interval(pseudo_values(sums, statistic), value, rules.confidence, largest, reach)


def _slices(scores: MetricScores, rules: ComparisonRules) -> tuple[tuple[SliceComparison, ...], int]:
    """Comparisons of the largest slices of each column, and the number of those left out."""
    found, left_out = [], 0
    for column, values in scores.columns.items():
        sizes = Counter(values).most_common()
        left_out += max(0, len(sizes) - MAX_SLICES)
        for value, _ in sizes[:MAX_SLICES]:
            chosen = scores.select(np.array([other == value for other in values]))
            comparison = compare(chosen.pairs(rules.seed), rules.confidence)
            found.append(SliceComparison(column, value, comparison))
    return tuple(found), left_out
