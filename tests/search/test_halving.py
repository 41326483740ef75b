"""Successive halving ends the trials that fall behind, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.search import Measurement, SearchSettings, SuccessiveHalving, Trial, TrialState
from tunesmith_search.halving import falls_behind

RATE = {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"}
SEARCH = SearchSettings.model_validate(
    {"parameters": [RATE], "trials": 20, "pruner": {"startPercent": 10, "reductionFactor": 3}}
)


def trial(number: int, *losses: tuple[float, float], state: TrialState = TrialState.RUNNING) -> Trial:
    """A trial with its losses by per cent."""
    measurements = tuple(Measurement(percent=percent, loss=loss) for percent, loss in losses)
    return Trial(number=number, parameters={"learningRate": "1e-4"}, state=state, measurements=measurements)


def test_points_of_comparison() -> None:
    assert SuccessiveHalving().rungs == (10, 30, 90)
    assert SuccessiveHalving(start_percent=25, reduction_factor=2).rungs == (25, 50)


def test_a_bad_trial_is_ended_and_a_good_one_goes_on() -> None:
    trials = [trial(number, (10, float(number))) for number in range(1, 7)]
    behind = [falls_behind(SEARCH, trials, number) for number in range(1, 7)]
    assert behind == [False, False, True, True, True, True]


def test_the_first_trial_at_a_point_goes_on() -> None:
    trials = [trial(1, (10, 9.0)), trial(2)]
    assert not falls_behind(SEARCH, trials, 1)
    assert not falls_behind(SEARCH, trials, 2)


def test_only_the_last_point_counts() -> None:
    """Who caught up is not ended for a bad start."""
    others = [trial(number, (10, 1.0), (30, 1.0)) for number in range(1, 4)]
    assert not falls_behind(SEARCH, [*others, trial(4, (10, 5.0), (30, 0.5))], 4)
    assert falls_behind(SEARCH, [*others, trial(4, (10, 0.5), (30, 5.0))], 4)


def test_a_point_is_measured_by_the_first_loss_from_there_on() -> None:
    others = [trial(number, (12, 1.0)) for number in range(1, 4)]
    assert falls_behind(SEARCH, [*others, trial(4, (9, 0.1), (14, 5.0), (20, 0.1))], 4)


def test_ended_trials_are_still_competitors() -> None:
    others = [
        trial(1, (10, 1.0), (100, 0.5), state=TrialState.COMPLETED),
        trial(2, (10, 1.1), state=TrialState.PRUNED),
        trial(3, (10, 1.2), state=TrialState.FAILED),
    ]
    assert falls_behind(SEARCH, [*others, trial(4, (10, 2.0))], 4)


def test_a_loss_that_is_no_number_falls_behind() -> None:
    assert falls_behind(SEARCH, [trial(1, (10, float("nan")))], 1)


def test_without_a_pruner_nothing_is_ended() -> None:
    search = SEARCH.model_copy(update={"pruner": None})
    assert not falls_behind(search, [trial(number, (10, float(number))) for number in range(1, 9)], 8)


def test_a_trial_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no trial 2"):
        falls_behind(SEARCH, [trial(1)], 2)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12))
def test_the_best_trial_is_never_ended(losses: list[float]) -> None:
    trials = [trial(number, (10, loss)) for number, loss in enumerate(losses, 1)]
    best = min(trials, key=lambda item: item.measurements[0].loss)
    assert not falls_behind(SEARCH, trials, best.number)
