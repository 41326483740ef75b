"""The best trial and the importance of parameters."""

import pytest

from tunesmith_contract.search import Parameter, SearchSettings, Trial, TrialState
from tunesmith_search.results import best_trial, importances

SEARCH = SearchSettings.model_validate(
    {
        "parameters": [
            {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"},
            {"name": "dropout", "min": "0", "max": "0.5"},
        ],
        "trials": 64,
    }
)


def trial(number: int, loss: float | None, state: TrialState = TrialState.COMPLETED, **values: str) -> Trial:
    parameters = {"learningRate": "1e-4", "dropout": "0"} | values
    return Trial.model_validate({"number": number, "parameters": parameters, "state": state, "loss": loss})


def test_the_lowest_loss_of_completed_trials_is_the_best() -> None:
    trials = [
        trial(1, 0.9),
        trial(2, 0.5),
        trial(3, 0.5),
        trial(4, 0.1, TrialState.PRUNED),
        trial(5, None, TrialState.FAILED),
        trial(6, float("nan")),
    ]
    found = best_trial(trials)
    assert found is not None
    assert found.number == 2


def test_no_trial_is_the_best_before_one_has_completed() -> None:
    assert best_trial([trial(1, None, TrialState.RUNNING), trial(2, 0.3, TrialState.PRUNED)]) is None


def test_the_parameter_that_decides_is_the_important_one() -> None:
    trials = [
        trial(
            number,
            abs(number - 12) / 10,
            learningRate=f"{1e-5 * 1.3**number:.4g}",
            dropout=f"{number * 7 % 24 / 50}",
        )
        for number in range(1, 25)
    ]
    shares = importances(SEARCH, trials)
    assert list(shares) == ["learningRate", "dropout"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[Parameter.model_validate({"name": "learningRate", "values": ["1"]}).name] > 0.7


def test_few_trials_say_nothing() -> None:
    assert importances(SEARCH, [trial(number, 0.1 * number) for number in range(1, 8)]) == {}
