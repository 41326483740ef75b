"""Proposals are the same for the same trials, differ between trials, and learn from losses."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.search import Parameter, ParameterName, Sampler, SearchSettings, Trial, TrialState
from tunesmith_search.proposals import propose

RATE = Parameter.model_validate({"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"})
RANK = Parameter.model_validate({"name": "rank", "values": ["8", "16", "32"]})
DECAY = Parameter.model_validate({"name": "weightDecay", "min": "0", "max": "0.1"})
EPOCHS = Parameter.model_validate({"name": "epochs", "min": "1", "max": "3"})


def settings(*parameters: Parameter, sampler: Sampler = Sampler.TPE, **fields: object) -> SearchSettings:
    written = {"parameters": parameters or (RATE, RANK), "sampler": sampler, "trials": 64}
    return SearchSettings.model_validate(written | fields)


def complete(search: SearchSettings, count: int, loss: object = None) -> list[Trial]:
    """So many trials, each proposed after the one before has ended."""
    measure = loss or (lambda parameters: 1.0)
    trials: list[Trial] = []
    for number in range(1, count + 1):
        parameters = propose(search, trials)
        if parameters is None:
            break
        ended = {"state": TrialState.COMPLETED, "loss": measure(parameters)}  # type: ignore[operator]
        trials.append(Trial(number=number, parameters=parameters, **ended))
    return trials


@pytest.mark.parametrize("sampler", Sampler)
def test_the_same_trials_lead_to_the_same_proposal(sampler: Sampler) -> None:
    search = settings(sampler=sampler)
    trials = complete(search, 14, quadratic)
    again = [Trial.model_validate_json(trial.to_json()) for trial in reversed(trials)]
    assert propose(search, trials) == propose(search, again)
    assert complete(search, 14, quadratic) == trials


@pytest.mark.parametrize("sampler", Sampler)
def test_trials_that_run_side_by_side_differ(sampler: Sampler) -> None:
    search = settings(sampler=sampler)
    trials = complete(search, 12, quadratic)
    for number in range(13, 21):
        parameters = propose(search, trials)
        assert parameters is not None
        trials.append(Trial(number=number, parameters=parameters))
    chosen = [tuple(trial.parameters.items()) for trial in trials]
    assert len(set(chosen)) == len(chosen)


def test_another_seed_makes_other_proposals() -> None:
    assert propose(settings(), []) != propose(settings(seed=7), [])


def test_no_more_than_the_allowed_trials_are_proposed() -> None:
    search = settings(trials=3)
    assert len(complete(search, 10)) == 3


def test_a_finite_space_is_searched_once_and_then_over() -> None:
    search = settings(RANK, EPOCHS)
    trials = complete(search, 20)
    assert len(trials) == 9
    assert len({tuple(trial.parameters.items()) for trial in trials}) == 9
    assert propose(search, trials) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(Sampler))
def test_values_stay_in_their_range_and_are_short(seed: int, sampler: Sampler) -> None:
    parameters = propose(settings(RATE, RANK, DECAY, EPOCHS, seed=seed, sampler=sampler), [])
    assert parameters is not None
    assert 1e-5 <= float(parameters[ParameterName.LEARNING_RATE]) <= 1e-2
    assert 0 <= float(parameters[ParameterName.WEIGHT_DECAY]) <= 0.1
    assert parameters[ParameterName.RANK] in RANK.values
    assert parameters[ParameterName.EPOCHS] in {"1", "2", "3"}
    assert all(len(value) <= 10 for value in parameters.values())


def test_failed_and_pruned_trials_are_no_obstacle() -> None:
    search = settings()
    trials = complete(search, 12, quadratic)
    for number, state in ((13, TrialState.FAILED), (14, TrialState.PRUNED)):
        parameters = propose(search, trials)
        assert parameters is not None
        trials.append(Trial(number=number, parameters=parameters, state=state))
    assert propose(search, trials) not in (None, *(trial.parameters for trial in trials))


def quadratic(parameters: dict[ParameterName, str]) -> float:
    """A loss that is lowest at a rate of 3e-4 and a decay of 0.02."""
    rate = math.log10(float(parameters[ParameterName.LEARNING_RATE])) - math.log10(3e-4)
    return rate**2 + (50 * (float(parameters.get(ParameterName.WEIGHT_DECAY, "0.02")) - 0.02)) ** 2


def test_tpe_comes_closer_than_chance() -> None:
    def regret(sampler: Sampler, seed: int) -> float:
        trials = complete(settings(RATE, DECAY, sampler=sampler, seed=seed), 30, quadratic)
        return min(trial.loss for trial in trials if trial.loss is not None)

    seeds = random.Random(1).sample(range(10_000), 8)
    learned, drawn = ([regret(sampler, seed) for seed in seeds] for sampler in (Sampler.TPE, Sampler.RANDOM))
    assert sum(learned) < 0.6 * sum(drawn)
    assert sum(better < worse for better, worse in zip(learned, drawn, strict=True)) >= 6
