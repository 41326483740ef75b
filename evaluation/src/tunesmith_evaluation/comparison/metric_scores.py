"""Scores of all sides by one metric."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tunesmith_evaluation.statistics.corpus import mean
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.jackknife import FAR
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.statistics.pairs import BoundedPairs, Pairs, SummedPairs

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CorpusTerms:
    """Terms of a statistic of the whole corpus.

    Attributes:
        terms: what each item adds to the sums, shape (sides, items, k).
        statistic: value of a side, from sums of shape (..., k); see `tunesmith_evaluation.statistics.corpus`.
        upper: largest value of the statistic, whose least one is 0; None if it has no bound.
        swings: how far one more group of items can move the statistic, as `SummedPairs` asks for it.
    """

    terms: Floats
    statistic: Callable[[Floats], Floats]
    upper: float | None = None
    swings: Callable[[Floats], tuple[Floats, Floats]] | None = None


@dataclass(frozen=True, slots=True)
class MetricScores:
    """Scores of all sides on the items of one suite, by one metric.

    Items that were left out of the comparison for all sides, such as leaked ones, are not here. Repeated answers to an
    item are one row: their mean, or pass@k.

    Attributes:
        suite: name of the suite.
        metric: key of the metric.
        kind: kind of the scores.
        values: shape (sides, items), candidate and baseline first; NaN where a side has no score.
        groups: label of each item's group; None if items are independent.
        columns: values of the items by name of a column whose slices are reported.
        corpus: terms of a statistic of kind ``CORPUS``.
        higher_is_better: False if low scores are good.
        largest: the largest possible score of candidate and baseline of kind ``UNBOUNDED``, where it is known, such as
            the most tokens that an answer can have. With it the tests are valid for any number of items; scores must
            not be negative.
    """

    suite: str
    metric: str
    kind: ScoreKind
    values: Floats
    groups: Sequence[Hashable] | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    corpus: CorpusTerms | None = None
    higher_is_better: bool = True
    largest: float | None = None

    @property
    def items(self) -> int:
        """Number of items, with or without scores."""
        return int(self.values.shape[1])

    @property
    def upper(self) -> float | None:
        """Upper bound of the scores of candidate and baseline; None without one, or for a statistic of a corpus."""
        return self.upper_of(0)

    def upper_of(self, side: int) -> float | None:
        """Upper bound of the scores of a side; ``largest`` does not hold for references."""
        if self.kind in {ScoreKind.BINARY, ScoreKind.UNIT_INTERVAL}:
            return 1.0
        return self.largest if side < 2 else None

    @property
    def broken(self) -> int:
        """Number of items without a score of candidate or baseline."""
        return int(np.isnan(self.values[:2]).any(axis=0).sum())

    @property
    def hides_losses(self) -> bool:
        """True if the candidate has no score where the baseline has one, and no bound says what it could have been."""
        lacking = np.isnan(self.values[0]) & ~np.isnan(self.values[1])
        return self.upper is None and bool(lacking.any())

    def select(self, chosen: NDArray[np.bool_]) -> "MetricScores":
        """Scores on some of the items.

        Args:
            chosen: shape (items,).
        """
        groups = (
            None if self.groups is None else [self.groups[index] for index in np.flatnonzero(chosen).tolist()]
        )
        corpus = self.corpus and replace(self.corpus, terms=self.corpus.terms[:, chosen])
        return replace(self, values=self.values[:, chosen], groups=groups, columns={}, corpus=corpus)

    def pairs(self, seed: int) -> Pairs:
        """Scores of candidate and baseline, ready to be tested.

        Items without a score of either side are left out. Where one of the two has a bounded score, the other one's
        is counted as the worst for each test; where scores have no bounds, the item is left out.

        Args:
            seed: seed of permutations.

        Raises:
            ValueError: a score is outside its range.
        """
        both = self.values[:2]
        known = ~np.isnan(both)
        groups = Groups.of(self.groups, self.items)
        if self.upper is not None:
            kept = np.asarray(known.any(axis=0))
            self._check_range(both[:, kept], 0.0, self.upper)
            binary = self.are_binary(both[known])
            return BoundedPairs(both[0, kept], both[1, kept], groups.keep(kept), binary, seed, self.upper)
        kept = np.asarray(known.all(axis=0))
        if self.corpus is None:
            self._check_range(both[:, kept], -FAR, FAR)
        terms, statistic = self.terms()
        upper, swings = (self.corpus.upper, self.corpus.swings) if self.corpus else (None, None)
        sides = terms[0][kept], terms[1][kept]
        return SummedPairs(*sides, groups.keep(kept), statistic, seed, upper, swings)

    def are_binary(self, values: Floats) -> bool:
        """True for scores of 0 and 1 alone: the mean of repeated answers may lie between."""
        return self.kind is ScoreKind.BINARY and bool(np.isin(values, (0, 1)).all())

    def terms(self) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Terms of all sides in sums, shape (sides, items, k), and the statistic of these sums."""
        if self.corpus is not None:
            return self.corpus.terms, self.corpus.statistic
        return np.stack([self.values, np.ones_like(self.values)], axis=-1), mean

    def _check_range(self, values: Floats, least: float, largest: float) -> None:
        known = values[~np.isnan(values)]
        if len(known) and (known.min() < least or known.max() > largest):
            raise ValueError(
                f"{self.suite}/{self.metric}: scores have to be from {least:g} to {largest:g}, "
                f"not {known.min():g} to {known.max():g}"
            )
