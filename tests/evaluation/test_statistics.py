"""Coverage of the confidence intervals, exactness of the tests, scores of the metrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from tunesmith_contract.evaluation import Metric
from tunesmith_evaluation.metrics.text_metrics import accepts, exact_match, json_fields, score
from tunesmith_evaluation.statistics.intervals import (
    difference_interval,
    difference_p_value,
    mcnemar,
    mean_interval,
    tango_interval,
)

RUNS = 400
#: Three standard errors of a coverage of 0.95 measured in RUNS runs.
TOLERANCE = 0.033


@pytest.mark.parametrize("items", [20, 60, 200])
@pytest.mark.parametrize(("better", "worse"), [(0, 0), (0.02, 0), (0.3, 0.1), (0.9, 0.02)])
def test_tango_covers_the_true_difference(items: int, better: float, worse: float) -> None:
    draws = np.random.default_rng(7).multinomial(items, [better, worse, 1 - better - worse], size=RUNS)
    covered = 0
    for wins, losses, _ in draws:
        interval = tango_interval(int(wins), int(losses), items, 0.95)
        covered += interval.low - 1e-6 <= better - worse <= interval.high + 1e-6
    assert covered / RUNS >= 0.95 - TOLERANCE


#: Possible scores and their probabilities.
Scores = tuple[list[float], list[float]]

CEILING = ([1, 0.75, 0.5, 0], [0.9, 0.06, 0.03, 0.01])
MIDDLE = ([0, 0.25, 0.5, 0.75, 1], [0.1, 0.2, 0.4, 0.2, 0.1])
RARE = ([1, 0], [0.02, 0.98])
ALWAYS = ([1], [1])


@pytest.mark.parametrize("items", [20, 60, 200])
@pytest.mark.parametrize(
    ("left", "right"), [(CEILING, MIDDLE), (CEILING, CEILING), (RARE, ALWAYS), (ALWAYS, ALWAYS)]
)
def test_continuous_intervals_cover(items: int, left: Scores, right: Scores) -> None:
    chance = np.random.default_rng(11)
    means = [float(np.dot(*side)) for side in (left, right)]
    covered_mean = covered_difference = 0
    for _ in range(RUNS):
        scores = [chance.choice(side[0], items, p=side[1]).tolist() for side in (left, right)]
        mean = mean_interval(scores[0], 0.95, binary=False)
        delta = difference_interval(scores[0], scores[1], 0.95, binary=False)
        covered_mean += mean.low - 1e-6 <= means[0] <= mean.high + 1e-6
        covered_difference += delta.low - 1e-6 <= means[0] - means[1] <= delta.high + 1e-6
    assert covered_mean / RUNS >= 0.95 - TOLERANCE
    assert covered_difference / RUNS >= 0.95 - TOLERANCE


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.booleans())
def test_intervals_hold_their_value_and_stay_in_range(pairs: list[tuple[bool, bool]], binary: bool) -> None:
    left, right = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    side = mean_interval(left, 0.9, binary=binary)
    assert 0 <= side.low <= side.value <= side.high <= 1
    delta = difference_interval(left, right, 0.9, binary=binary)
    mirrored = difference_interval(right, left, 0.9, binary=binary)
    assert -1 <= delta.low <= delta.value <= delta.high <= 1
    assert 0 < difference_p_value(left, right, binary=binary, seed=1) <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-delta.high, -delta.low), abs=1e-5)


def test_agreement_is_no_proof_of_equality() -> None:
    small, large = (difference_interval([1.0] * n, [1.0] * n, 0.95, binary=True) for n in (20, 200))
    assert small.high > 0.1 > large.high > 0
    assert mcnemar(0, 0) == 1


def test_mcnemar_is_a_fair_coin_among_the_items_that_differ() -> None:
    assert mcnemar(1, 10) == pytest.approx(2 * (1 + 11) / 2**11)


@pytest.mark.parametrize(("better", "worse", "items"), [(12, 2, 50), (1, 10, 40), (30, 30, 200)])
def test_tango_limits_are_where_the_score_test_just_rejects(better: int, worse: int, items: int) -> None:
    interval = tango_interval(better, worse, items, 0.95)
    for limit in (interval.low, interval.high):

        def unlikelihood(only_worse: float, limit: float = limit) -> float:
            rest = 1 - 2 * only_worse - limit
            counts = (better, worse, items - better - worse)
            return -float(np.dot(counts, np.log([only_worse + limit, only_worse, rest])))

        room = (max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9)
        only_worse = optimize.minimize_scalar(unlikelihood, bounds=room, options={"xatol": 1e-10}).x
        variance = (2 * only_worse + limit - limit**2) / items
        distance = ((better - worse) / items - limit) / np.sqrt(variance)
        assert abs(distance) == pytest.approx(1.95996, abs=1e-3)


def test_paired_test_sees_what_is_small_but_steady() -> None:
    baseline = np.random.default_rng(3).uniform(0.2, 0.8, 40)
    better, worse = (baseline + 0.1).tolist(), baseline.tolist()
    assert difference_p_value(better, worse, binary=False, seed=1) < 0.001
    assert difference_interval(better, worse, 0.95, binary=False).low > 0


@pytest.mark.parametrize(
    ("answer", "expected", "wanted"),
    [
        ('{"a": 1, "b": "x  y"}', '{"b": "x y", "a": 1.0}', 1.0),
        ('Sure: ```{"a": 1}``` done', '{"a": 1}', 1.0),
        ('{"a": 1}', '{"a": 1, "b": 2}', 0.5),
        ('{"a": 1, "b": 2, "c": 3, "d": 4}', '{"a": 1, "b": 2}', 0.5),
        ('{"a": true}', '{"a": 1}', 0.0),
        ('{"a": [1, {"x": null}]}', '{"a": [1, {"x": null}]}', 1.0),
        ("{broken", '{"a": 1}', 0.0),
        ("[1]", '{"a": 1}', 0.0),
    ],
)
def test_json_fields(answer: str, expected: str, wanted: float) -> None:
    assert json_fields(answer, expected) == wanted
    assert score(Metric.JSON_FIELDS, answer, expected) == wanted


def test_exact_match_ignores_white_space_alone() -> None:
    assert exact_match(" a\n b ", "a b") == 1
    assert exact_match("A b", "a b") == 0
    assert not accepts(Metric.JSON_FIELDS, "[1]")
    assert not accepts(Metric.JSON_FIELDS, "{}")
    assert accepts(Metric.EXACT_MATCH, "anything")
