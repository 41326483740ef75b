"""Reliability of labels: Krippendorff's alpha over counts of values, and its interval.

Source: Krippendorff, Content Analysis: An Introduction to Its Methodology (2004).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import krippendorff
import numpy as np

BOOTSTRAP_REPEATS = 1000

#: How values are compared: as names, or as places in an order.
Level = Literal["nominal", "ordinal"]
#: What each annotator says, by item and annotator.
Table = Mapping[str, Mapping[str, str]]
#: Counts of values, a row an item and a column a value.
Counts = np.ndarray[Any, np.dtype[np.int64]]


def domain_of(table: Table, level: Level) -> list[str]:
    """The values that were given, in order: of numbers where the level has one."""
    found = {value for values in table.values() for value in values.values()}
    return sorted(found, key=int) if level == "ordinal" else sorted(found)


def value_counts(table: Table, domain: Sequence[str]) -> Counts:
    """How many gave each value to each item, in the order of both."""
    columns = {value: column for column, value in enumerate(domain)}
    counts = np.zeros((len(table), len(domain)), dtype=np.int64)
    for line, values in enumerate(table.values()):
        for value in values.values():
            counts[line, columns[value]] += 1
    return counts


def krippendorff_alpha(counts: Counts, level: Level) -> float | None:
    """Alpha; None where no item has two answers, or all answers are the same: nothing then tells them apart."""
    shared = counts[counts.sum(axis=1) > 1]
    if not len(shared) or (shared.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=shared, level_of_measurement=level))


def alpha_interval(counts: Counts, level: Level, seed: int) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap over items; None where fewer than two items are shared."""
    shared = counts[counts.sum(axis=1) > 1]
    if len(shared) < 2:
        return None
    generator = np.random.default_rng(seed)
    samples = (
        krippendorff_alpha(shared[generator.integers(len(shared), size=len(shared))], level)
        for _ in range(BOOTSTRAP_REPEATS)
    )
    # A sample of equal answers has no alpha, and says nothing about it.
    alphas = [alpha for alpha in samples if alpha is not None]
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(low), float(high)


def observed_agreement(counts: Counts) -> float | None:
    """The mean over shared items of the share of pairs of answers that are the same."""
    shared = counts[counts.sum(axis=1) > 1]
    if not len(shared):
        return None
    return float(np.mean([1 - disagreement_of(line) for line in shared]))


def disagreement_of(line: Counts) -> float:
    """The share of pairs of answers to an item that differ."""
    total = int(line.sum())
    same = sum(int(count) * (int(count) - 1) for count in line)
    return 1 - same / (total * (total - 1))
