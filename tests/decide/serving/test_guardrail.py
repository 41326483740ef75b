"""The guardrail keeps its promise over a whole rollout, and sees what is bad soon."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from long_form import cases

from tunesmith.decide.serving.guardrail import is_crossed, log_evidence

BOUND, CONFIDENCE = 0.02, 0.95


def first_alarm(rate: float, steps: int, looks: int, requests_per_look: int, seed: int) -> int | None:
    """Requests of the step until an alarm in a rollout of so many steps, a look after every few requests."""
    source = random.Random(seed)
    for _ in range(steps):
        requests = errors = 0
        for _ in range(looks):
            requests += requests_per_look
            errors += sum(source.random() < rate for _ in range(requests_per_look))
            if is_crossed(requests, errors, BOUND, (1 - CONFIDENCE) / steps):
                return requests
    return None


@pytest.mark.many_cases
@pytest.mark.parametrize("requests_per_look", [1, 10])
def test_false_alarms_of_whole_rollouts_stay_within_the_promise(requests_per_look: int) -> None:
    rollouts = cases(250, 5000)
    alarms = sum(
        first_alarm(BOUND, steps=2, looks=100, requests_per_look=requests_per_look, seed=seed) is not None
        for seed in range(rollouts)
    )
    allowed = 1 - CONFIDENCE
    three_sigma = 3 * math.sqrt(allowed * CONFIDENCE / rollouts)
    assert alarms / rollouts <= allowed + three_sigma


@pytest.mark.parametrize(("rate", "within"), [(1.0, 5), (0.5, 20), (0.2, 80), (0.1, 250)])
def test_a_bad_version_is_seen_soon(rate: float, within: int) -> None:
    alarms = [first_alarm(rate, steps=1, looks=1000, requests_per_look=1, seed=seed) for seed in range(100)]
    seen = sorted(alarm for alarm in alarms if alarm is not None)
    assert len(seen) == 100
    assert seen[50] <= within


@given(st.integers(0, 10**6), st.floats(0.001, 0.9), st.floats(0, 1))
def test_more_errors_are_never_less_evidence(requests: int, bound: float, share: float) -> None:
    errors = int(requests * share)
    evidence = log_evidence(requests, errors, bound)
    assert not math.isnan(evidence)
    if errors < requests:
        assert log_evidence(requests, errors + 1, bound) > evidence


def test_nothing_seen_says_nothing_and_no_error_is_tolerated_where_none_is_allowed() -> None:
    assert log_evidence(0, 0, 0.02) == pytest.approx(0)
    assert not is_crossed(1000, 0, 0.0, 0.01)
    assert is_crossed(1000, 1, 0.0, 0.01)
