"""False verdicts and coverage by simulation, one-sided, over shapes of differences.

Each shape is a distribution of paired scores with a known difference. A gate whose threshold is this very difference
must neither pass nor fail more often than its level, at any number of items.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from long_form import cases
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.evaluation import Expect, Gate
from tunesmith_contract.report import GateEvidence, Interval
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_evaluation.statistics.comparing import compare
from tunesmith_evaluation.statistics.gates import judge_gate
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.pairs import BoundedPairs, Threshold

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Paired scores: values of (candidate, baseline) with probabilities.

    Attributes:
        binary: all scores are 0 or 1.
        group_size: items of a group, which all have the same scores: the strongest dependence there is.
    """

    pairs: tuple[tuple[float, float], ...]
    chances: tuple[float, ...]
    binary: bool = False
    group_size: int = 1

    @property
    def difference(self) -> float:
        """True difference of the means."""
        return float(sum(chance * (c - b) for (c, b), chance in zip(self.pairs, self.chances, strict=True)))

    def draw(self, items: int, chance: np.random.Generator) -> BoundedPairs:
        """Scores of a random sample of items."""
        groups = max(1, items // self.group_size)
        rows = np.array(self.pairs)[chance.choice(len(self.pairs), size=groups, p=self.chances)]
        labels = None if self.group_size == 1 else np.repeat(np.arange(groups), self.group_size).tolist()
        rows = np.repeat(rows, self.group_size, axis=0)
        return BoundedPairs(rows[:, 0], rows[:, 1], Groups.of(labels, len(rows)), self.binary, seed=3)


SHAPES = {
    "a little better on most, broken on a few": Shape(((0.9, 0.8), (0.0, 0.8)), (0.96, 0.04)),
    "rare breaks": Shape(((1.0, 0.98), (0.0, 1.0)), (0.99, 0.01)),
    "mostly ties": Shape(((0.5, 0.5), (0.7, 0.2), (0.1, 0.6)), (0.9, 0.05, 0.05)),
    "even": Shape(((0.6, 0.4), (0.3, 0.5), (0.8, 0.9), (0.2, 0.1)), (0.3, 0.2, 0.3, 0.2)),
    "rare gains": Shape(((0.3, 0.32), (1.0, 0.0)), (0.97, 0.03)),
    "binary, few differ": Shape(((1, 1), (0, 0), (1, 0), (0, 1)), (0.6, 0.34, 0.03, 0.03), binary=True),
    "binary, many differ": Shape(((1, 1), (0, 0), (1, 0), (0, 1)), (0.3, 0.2, 0.2, 0.3), binary=True),
    "binary, never better": Shape(((1, 1), (0, 1)), (0.97, 0.03), binary=True),
    "groups": Shape(((0.9, 0.7), (0.1, 0.6)), (0.7, 0.3), group_size=4),
    "binary groups": Shape(((1, 1), (1, 0), (0, 1)), (0.5, 0.25, 0.25), binary=True, group_size=5),
}
LEVELS = (0.1, 0.05, 0.025, 0.005)


def _sorted(pairs: BoundedPairs) -> bytes:
    """Scores without their order, on which nothing depends."""
    return np.sort(pairs.candidate * 10 + pairs.baseline).tobytes()


def allowed(level: float, runs: int) -> float:
    """Share of runs that a test of this level exceeds once in 10,000 tries."""
    return float(stats.binom.isf(1e-4, runs, level)) / runs


@pytest.mark.many_cases
@pytest.mark.parametrize("name", SHAPES)
def test_false_verdicts_stay_at_their_level(name: str) -> None:
    shape, runs = SHAPES[name], cases(120, 2500)
    chance = np.random.default_rng(17)
    threshold = Threshold(shape.difference)
    for items in (8, 30, 120):
        found: dict[bytes, tuple[float, float]] = {}
        values = []
        for _ in range(runs):
            pairs = shape.draw(items, chance)
            key = _sorted(pairs)
            if key not in found:
                found[key] = pairs.p_above(threshold), pairs.p_below(threshold)
            values.append(found[key])
        above, below = np.array(values).T
        for level in LEVELS:
            assert (above <= level).mean() <= allowed(level, runs), (items, level)
            assert (below <= level).mean() <= allowed(level, runs), (items, level)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", SHAPES)
def test_each_end_of_the_interval_covers(name: str) -> None:
    shape, runs = SHAPES[name], cases(12, 300)
    chance = np.random.default_rng(23)
    for confidence in (0.8, 0.95, 0.99):
        missed = np.zeros(2)
        found: dict[bytes, Interval] = {}
        for _ in range(runs):
            pairs = shape.draw(40, chance)
            key = _sorted(pairs)
            if key not in found:
                found[key] = compare(pairs, confidence).delta
            _, low, high = found[key]
            missed += (low > shape.difference, high < shape.difference)
        assert (missed / runs <= allowed((1 - confidence) / 2, runs)).all()


@pytest.mark.many_cases
@pytest.mark.parametrize(("expect", "margin"), [(Expect.BETTER, 0.0), (Expect.NOT_WORSE, 0.05)])
def test_a_run_of_several_gates_passes_and_fails_falsely_at_its_level(expect: Expect, margin: float) -> None:
    """Four gates; one true difference is the threshold (no Pass), then all of them are (no Fail)."""
    truth = margin if expect is Expect.BETTER else -margin
    gates = [Gate(suite="s", metric="m", expect=expect, margin=margin)] * 4
    chance = np.random.default_rng(31)
    runs, verdicts = cases(100, 2000), []
    found: dict[tuple[int, int], GateEvidence] = {}

    def evidence(difference: float) -> GateEvidence:
        rates = ((0.4 + difference) / 2, (0.4 - difference) / 2, 0.6)
        better, worse, _ = chance.multinomial(60, rates).tolist()
        if (better, worse) not in found:
            pairs = _binary_pairs(better, worse, 60)
            found[better, worse] = judge_gate(pairs, gates[0], 0.95, broken=0, max_broken=0.05)
        return found[better, worse]

    for good in (0.3, 0.0):
        counts = dict.fromkeys(Verdict, 0)
        for _ in range(runs):
            judged = judge(gates, [evidence(truth + lead) for lead in (0.0, good, good, good)], 0.95)
            counts[judged.verdict] += 1
        verdicts.append(counts)
    assert verdicts[0][Verdict.PASS] / runs <= allowed(0.025, runs)
    assert verdicts[1][Verdict.FAIL] / runs <= allowed(0.025, runs)


def _binary_pairs(better: int, worse: int, items: int) -> BoundedPairs:
    rest = [1.0] * (items - better - worse)
    candidate = np.array([1.0] * better + [0.0] * worse + rest)
    baseline = np.array([0.0] * better + [1.0] * worse + rest)
    return BoundedPairs(candidate, baseline, Groups.of(None, items), binary=True, seed=1)


@pytest.mark.many_cases
def test_missing_answers_of_the_candidate_never_help() -> None:
    """A candidate that leaves out just what it would get wrong passes no more often than allowed."""
    chance, runs, passed = np.random.default_rng(5), cases(100, 2000), 0
    for _ in range(runs):
        rows = np.array([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])[chance.choice(3, size=100, p=(0.05, 0.1, 0.85))]
        hidden = np.where(rows[:, 0] == 0, np.nan, rows[:, 0])
        pairs = BoundedPairs(hidden, rows[:, 1], Groups.of(None, 100), binary=True, seed=1)
        passed += pairs.p_above(Threshold(-0.05)) <= 0.025
    assert passed / runs <= allowed(0.025, runs)


@pytest.mark.many_cases
@pytest.mark.parametrize(("has", "margin"), [(0.03, 0.05), (0.06, 0.05), (0.1, 0.05), (0.2, 0.1)])
def test_a_low_baseline_does_not_pass_what_lost_all_that_is_allowed(has: float, margin: float) -> None:
    """The candidate keeps some of what the baseline has, and loses the margin, or half where that is less."""
    loss, runs = min(margin, has / 2), cases(100, 4000)
    gate = Gate(suite="s", metric="m", expect=Expect.NOT_WORSE, margin=margin)
    chance = np.random.default_rng(29)
    shape = Shape(((1, 1), (0, 1), (0, 0)), (has - loss, loss, 1 - has), binary=True)
    for items in (60, 200):
        found: dict[bytes, bool] = {}
        passed = 0
        for _ in range(runs):
            pairs = shape.draw(items, chance)
            key = _sorted(pairs)
            if key not in found:
                evidence = judge_gate(pairs, gate, 0.95, broken=0, max_broken=0.05)
                found[key] = judge([gate], [evidence], 0.95).verdict is Verdict.PASS
            passed += found[key]
        assert passed / runs <= allowed(0.025, runs), items
