"""Tests of the difference of two sides over the same items."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.report import Interval

from .bounded_means import mean_p_value
from .groups import Groups
from .jackknife import FAR, jackknife_interval, pseudo_p_value, pseudo_values, reach_of, standard_error_of
from .means import bounded_mean, standard_error
from .paired_proportions import conditional_p_value, unconditional_p_value
from .swaps import swap_p_values

Floats = NDArray[np.float64]

#: Least number of groups for statistics of a corpus and for values without bounds.
LEAST_GROUPS = 50


class Threshold(NamedTuple):
    """Value that the candidate is compared with: ``baseline * (1 + share) + offset``."""

    offset: float = 0.0
    share: float = 0.0


class Pairs(Protocol):
    """Scores of candidate and baseline over the same items."""

    @property
    def groups(self) -> Groups:
        """Groups of the items."""

    @property
    def items(self) -> int:
        """Number of items with scores of both sides."""

    @property
    def values(self) -> tuple[float, float]:
        """Value of candidate and baseline over the items with scores of both."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest difference that there can be."""

    @property
    def score_range(self) -> tuple[float, float]:
        """Least and largest score that there can be."""

    @property
    def standard_error(self) -> float:
        """Standard error of the difference, clustered by groups."""

    @property
    def least_groups(self) -> int:
        """Number of groups below which the tests prove nothing."""

    def baseline_interval(self, confidence: float) -> Interval:
        """Value of the baseline with its interval."""

    def p_above(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true value is at most the threshold.

        Args:
            threshold: value to compare with.
            scale: number of times that each item counts, to foresee the p-value of a larger sample like this one.
        """

    def p_below(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true value is at least the threshold.

        Args:
            threshold: value to compare with.
            scale: as of `p_above`.
        """


@dataclass(frozen=True)
class BoundedPairs:
    """Scores from 0 to an upper bound, compared by their means.

    An answer without a score never helps: where a test is to show that the candidate is good, the candidate's counts
    as 0 and the baseline's as the upper bound; where it is to show that the candidate is bad, the other way round.

    Tests: Gaffke's bound for groups and for scores that are not 0 or 1; the exact unconditional test for independent
    scores of 0 and 1. Where the hypothesis holds for equal sides too, the exact permutation test has to agree:
    McNemar's for scores of 0 and 1. All p-values are valid one-sided for any number of items; Gaffke's by a
    conjecture.

    Attributes:
        candidate: scores, shape (all items,); NaN where there is none.
        baseline: scores of the same items. An item has a score of at least one side.
        groups: groups of the items.
        binary: all scores are 0 or 1.
        seed: seed of the permutations.
        upper: the largest possible score.
    """

    candidate: Floats
    baseline: Floats
    groups: Groups
    binary: bool
    seed: int
    upper: float = 1.0

    @cached_property
    def items(self) -> int:
        """Number of items with scores of both sides."""
        return int(self._complete.sum())

    @cached_property
    def values(self) -> tuple[float, float]:
        """Mean of candidate and baseline over the items with scores of both."""
        if not self.items:
            return 0.0, 0.0
        return float(self.candidate[self._complete].mean()), float(self.baseline[self._complete].mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest difference that there can be."""
        return -self.upper, self.upper

    @property
    def score_range(self) -> tuple[float, float]:
        """Least and largest score that there can be."""
        return 0.0, self.upper

    @cached_property
    def standard_error(self) -> float:
        """Standard error of the difference, clustered by groups."""
        differences = (self.candidate - self.baseline)[self._complete]
        return standard_error(differences, self.groups.keep(self._complete)) if self.items else 0.0

    @property
    def least_groups(self) -> int:
        """Number of groups below which the tests prove nothing."""
        return 1

    def baseline_interval(self, confidence: float) -> Interval:
        """Mean of the baseline with its interval."""
        known = ~np.isnan(self.baseline)
        known_groups = self.groups.keep(known)
        return bounded_mean(
            self.baseline[known], known_groups, confidence, binary=self.binary, upper=self.upper
        )

    def p_above(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true mean is at most the threshold."""
        p_value = self._lead.p_value(threshold, scale)
        if threshold.offset >= 0 and threshold.share >= 0:
            p_value = max(p_value, self._exchange_p_value(self._lead, scale))
        return p_value

    def p_below(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true mean is at least the threshold."""
        p_value = self._lag.p_value(threshold, scale)
        if threshold.offset <= 0 and threshold.share <= 0:
            p_value = max(p_value, self._exchange_p_value(self._lag, scale))
        return p_value

    def _exchange_p_value(self, direction: "_Direction", scale: float) -> float:
        """P-value of the hypothesis that the sides are exchangeable."""
        if scale != 1:
            return direction.scaled_exchange(scale)
        if self.binary and self.groups.are_single:
            return conditional_p_value(*direction.discordant)
        return self._swaps[0 if direction.sign > 0 else 1]

    @cached_property
    def _swaps(self) -> tuple[float, float]:
        """P-values of the permutation test for a candidate above and below."""
        above = _swap_means(self._lead, self.seed)
        if self.items == len(self.candidate):
            return above
        return above[0], _swap_means(self._lag, self.seed)[1]

    @cached_property
    def _complete(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.candidate) & ~np.isnan(self.baseline))

    @cached_property
    def _lead(self) -> "_Direction":
        filled = (np.nan_to_num(self.candidate, nan=0.0), np.nan_to_num(self.baseline, nan=self.upper))
        return _Direction(*filled, self.groups, self.binary, self.upper, sign=1)

    @cached_property
    def _lag(self) -> "_Direction":
        filled = (np.nan_to_num(self.candidate, nan=self.upper), np.nan_to_num(self.baseline, nan=0.0))
        return _Direction(*filled, self.groups, self.binary, self.upper, sign=-1)


@dataclass(frozen=True)
class _Direction:
    """Test for one direction, after missing scores were filled in.

    Attributes:
        sign: 1 tests whether the candidate is above the threshold, -1 whether it is below.
    """

    candidate: Floats
    baseline: Floats
    groups: Groups
    binary: bool
    upper: float
    sign: int

    def p_value(self, threshold: Threshold, scale: float) -> float:
        """P-value of the hypothesis that the candidate is not on this side of the threshold."""
        factor = 1 + threshold.share
        worst = -factor * self.upper - threshold.offset if self.sign > 0 else threshold.offset - self.upper
        if worst >= 0 or not len(self.candidate):
            return 1.0
        if self.binary and self.groups.are_single and threshold.share == 0 and scale == 1:
            won, lost = self.discordant
            return unconditional_p_value(won, lost, len(self.candidate), self.sign * threshold.offset)
        candidate, baseline = self.sums
        excess = self.sign * (candidate - factor * baseline - threshold.offset * self.groups.sizes)
        return mean_p_value(excess, worst * float(self.groups.sizes.max()), scale)

    def scaled_exchange(self, scale: float) -> float:
        """About the p-value of exchangeable sides for a sample so many times larger."""
        candidate, baseline = self.sums
        differences = self.sign * (candidate - baseline)
        spread = float(np.sqrt(np.sum(differences**2)))
        return float(stats.norm.sf(differences.sum() / spread * np.sqrt(scale))) if spread else 1.0

    @cached_property
    def sums(self) -> tuple[Floats, Floats]:
        """Sums of candidate and baseline over each group."""
        return self.groups.sum(self.candidate), self.groups.sum(self.baseline)

    @cached_property
    def discordant(self) -> tuple[int, int]:
        """Items for and against this direction."""
        differences = self.sign * (self.candidate - self.baseline)
        return int((differences > 0).sum()), int((differences < 0).sum())


@dataclass(frozen=True)
class SummedPairs:
    """Statistics of a whole corpus, and means of values without bounds.

    Tests: Gaffke's bound of the jackknife's pseudo-values, with a stand-in for the bound that the values do not have;
    where the hypothesis holds for equal sides too, the permutation test has to agree. The permutation test is exact;
    the other holds for many groups, so that fewer than `least_groups` prove nothing.

    Attributes:
        candidate: terms of each item in the sums, shape (items, k).
        baseline: those of the same items.
        groups: groups of the items.
        statistic: value of a side, from sums of shape (..., k).
        seed: seed of the permutations.
        upper: largest value of the statistic, whose least one is 0; None if it has no bound.
        swings: how far one more group can move the statistic, down and up, for each kind of item; of the sums of each
            group. None if it is not known.
    """

    candidate: Floats
    baseline: Floats
    groups: Groups
    statistic: Callable[[Floats], Floats]
    seed: int
    upper: float | None = None
    swings: Callable[[Floats], tuple[Floats, Floats]] | None = None

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.candidate)

    @cached_property
    def values(self) -> tuple[float, float]:
        """Value of candidate and baseline."""
        if not self.items:
            return 0.0, 0.0
        candidate, baseline = (self.statistic(sums.sum(axis=0)) for sums in self._sums)
        return float(candidate), float(baseline)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest difference that there can be, or that is looked for."""
        return (-FAR, FAR) if self.upper is None else (-self.upper, self.upper)

    @property
    def score_range(self) -> tuple[float, float]:
        """Least and largest score that there can be.

        Where no bound is known, the least one counts as 0, or as the lowest that an item has if that is negative; the
        largest one is infinite.
        """
        if self.upper is not None:
            return 0.0, self.upper
        single = [self.statistic(terms) for terms in (self.candidate, self.baseline) if len(terms)]
        return min([0.0, *(float(values.min()) for values in single)]), float("inf")

    @property
    def standard_error(self) -> float:
        """Jackknife's standard error of the difference over groups."""
        candidate, baseline = self._pseudo_values
        return standard_error_of(candidate - baseline)

    @property
    def least_groups(self) -> int:
        """Number of groups below which the tests prove nothing."""
        return LEAST_GROUPS

    def baseline_interval(self, confidence: float) -> Interval:
        """Value of the baseline with its interval."""
        sums, value = self._sums[1], self.values[1]
        reach = reach_of(sums, value, self.swings)
        return jackknife_interval(self._pseudo_values[1], value, confidence, self.upper, reach)

    def p_above(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true value is at most the threshold."""
        p_value = pseudo_p_value(self._excess(threshold), self._worst(threshold, 1))
        if threshold.offset >= 0 and threshold.share >= 0:
            p_value = max(p_value, self._swaps[0])
        return _scaled(p_value, scale)

    def p_below(self, threshold: Threshold, scale: float = 1.0) -> float:
        """P-value of the hypothesis that the candidate's true value is at least the threshold."""
        p_value = pseudo_p_value(-self._excess(threshold), self._worst(threshold, -1))
        if threshold.offset <= 0 and threshold.share <= 0:
            p_value = max(p_value, self._swaps[1])
        return _scaled(p_value, scale)

    def _worst(self, threshold: Threshold, sign: int) -> float:
        """Least pseudo-value that another group could have; 0 where nothing bounds it.

        Args:
            threshold: value to compare with.
            sign: 1 of the candidate's lead over it, -1 of its lag.
        """
        if self.upper is None:
            return 0.0
        factor = 1 + threshold.share
        # At worst the candidate is at 0 and the baseline at the bound, or the other way round.
        worst = -factor * self.upper - threshold.offset if sign > 0 else threshold.offset - self.upper
        if self.swings is None or not self.items:
            return worst
        (lost, gained), (baseline_lost, baseline_gained) = self._swings
        change = lost - factor * baseline_gained if sign > 0 else factor * baseline_lost - gained
        candidate, baseline = self.values
        lead = sign * (candidate - factor * baseline - threshold.offset)
        return min(worst, lead + len(self.groups) * float(change.min()))

    @cached_property
    def _swings(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        assert self.swings is not None
        candidate, baseline = self._sums
        return self.swings(candidate), self.swings(baseline)

    def _excess(self, threshold: Threshold) -> Floats:
        """Pseudo-values of the candidate's lead over the threshold."""
        candidate, baseline = self._pseudo_values
        return candidate - (1 + threshold.share) * baseline - threshold.offset

    @cached_property
    def _sums(self) -> tuple[Floats, Floats]:
        return self.groups.sum(self.candidate), self.groups.sum(self.baseline)

    @cached_property
    def _pseudo_values(self) -> tuple[Floats, Floats]:
        candidate, baseline = self._sums
        return pseudo_values(candidate, self.statistic), pseudo_values(baseline, self.statistic)

    @cached_property
    def _swaps(self) -> tuple[float, float]:
        return swap_p_values(*self._sums, self.statistic, self.seed)


def _swap_means(direction: _Direction, seed: int) -> tuple[float, float]:
    candidate, baseline = direction.sums
    return swap_p_values(candidate[:, np.newaxis], baseline[:, np.newaxis], _first, seed)


def _first(sums: Floats) -> Floats:
    """The only sum."""
    return sums[..., 0]


def _scaled(p_value: float, scale: float) -> float:
    """P-value of a sample so many times larger, where the statistic is about normal."""
    if scale == 1 or p_value in {0.0, 1.0}:
        return p_value
    return float(stats.norm.sf(stats.norm.isf(p_value) * np.sqrt(scale)))
