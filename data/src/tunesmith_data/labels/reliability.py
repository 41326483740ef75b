"""Krippendorff's alpha over counts of values, and its bootstrap interval.

Source: Krippendorff, Content Analysis: An Introduction to Its Methodology (2004).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import krippendorff
import numpy as np

BOOTSTRAP_REPEATS = 1000

#: Level of measurement: names, or ordered values.
MeasurementLevel = Literal["nominal", "ordinal"]
#: Answers by item and annotator.
AnswerTable = Mapping[str, Mapping[str, str]]
#: Counts of values, a row an item and a column a value.
ValueCounts = np.ndarray[Any, np.dtype[np.int64]]


def value_domain(table: AnswerTable, level: MeasurementLevel) -> list[str]:
    """Distinct values, sorted; numerically for ordinal data."""
    values_given = {value for values in table.values() for value in values.values()}
    return sorted(values_given, key=int) if level == "ordinal" else sorted(values_given)


def value_counts(table: AnswerTable, domain: Sequence[str]) -> ValueCounts:
    """Number of votes per item and value."""
    columns = {value: column for column, value in enumerate(domain)}
    counts = np.zeros((len(table), len(domain)), dtype=np.int64)
    for line, values in enumerate(table.values()):
        for value in values.values():
            counts[line, columns[value]] += 1
    return counts


def krippendorff_alpha(counts: ValueCounts, level: MeasurementLevel) -> float | None:
    """Krippendorff's alpha; None if no item has two answers, or all answers are equal."""
    shared = counts[counts.sum(axis=1) > 1]
    if not len(shared) or (shared.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=shared, level_of_measurement=level))


def alpha_interval(counts: ValueCounts, level: MeasurementLevel, seed: int) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap over items; None where fewer than two items are shared."""
    shared = counts[counts.sum(axis=1) > 1]
    if len(shared) < 2:
        return None
    generator = np.random.default_rng(seed)
    samples = (
        krippendorff_alpha(shared[generator.integers(len(shared), size=len(shared))], level)
        for _ in range(BOOTSTRAP_REPEATS)
    )
    # A sample of equal answers has no alpha.
    alphas = [alpha for alpha in samples if alpha is not None]
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(low), float(high)


def observed_agreement(counts: ValueCounts) -> float | None:
    """The mean over shared items of the share of pairs of answers that are the same."""
    shared = counts[counts.sum(axis=1) > 1]
    if not len(shared):
        return None
    return float(np.mean([1 - answer_disagreement(line) for line in shared]))


def answer_disagreement(line: ValueCounts) -> float:
    """The share of pairs of answers to an item that differ."""
    total = int(line.sum())
    same = sum(int(count) * (int(count) - 1) for count in line)
    return 1 - same / (total * (total - 1))
