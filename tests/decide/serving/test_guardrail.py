"""The guardrail keeps its promise over a whole rollout, and sees what is bad soon."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from long_form import cases

from tunesmith.decide.serving.evidence import Arm, Counts
from tunesmith.decide.serving.rollout.guardrail import (
    design_effect,
    failing_keys,
    is_crossed,
    is_violated,
    is_worse,
    log_evidence,
)

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


def test_without_requests_nothing_varies() -> None:
    assert design_effect(Arm(), 0.02) == 1.0


def test_nothing_seen_says_nothing_and_no_error_is_tolerated_where_none_is_allowed() -> None:
    assert log_evidence(0, 0, 0.02) == pytest.approx(0)
    assert not is_crossed(1000, 0, 0.0, 0.01)
    assert is_crossed(1000, 1, 0.0, 0.01)


class Traffic:
    """Requests of clients that several pods answer, each of which counts its own keys.

    Clients are of unlike size (Pareto). ``broken`` of them fail always, the requests of others at ``rate``.
    """

    def __init__(self, source: random.Random, clients: int, pods: int, broken: float, rate: float) -> None:
        self._source, self._pods = source, pods
        self._sizes = [source.paretovariate(1.2) for _ in range(clients)]
        self._rates = [1.0 if source.random() < broken else rate for _ in range(clients)]
        self._keys: dict[tuple[int, int], list[int]] = {}

    def answer(self, requests: int) -> Arm:
        """All requests so far, after so many more."""
        for client in self._source.choices(range(len(self._sizes)), self._sizes, k=requests):
            counts = self._keys.setdefault((client, self._source.randrange(self._pods)), [0, 0])
            counts[0] += 1
            counts[1] += self._source.random() < self._rates[client]
        return build_arm([(n, f) for n, f in self._keys.values()], self._pods)


def build_arm(keys: list[tuple[int, int]], pods: int = 1) -> Arm:
    """Requests and failures of each key, as sums."""
    counts = Counts(
        requests=sum(n for n, _ in keys),
        errors=sum(f for _, f in keys),
        keys=len(keys),
        requests_squared=sum(n * n for n, _ in keys),
        failures_squared=sum(f * f for _, f in keys),
        requests_failures=sum(n * f for n, f in keys),
    )
    return Arm(total=counts, sources=pods)


@pytest.mark.many_cases
@pytest.mark.parametrize(("clients", "pods"), [(20, 1), (200, 1), (200, 3), (200, 10)])
def test_false_alarms_with_clients_that_fail_as_a_whole_stay_within_the_promise(
    clients: int, pods: int
) -> None:
    """2 % of the clients are broken, whatever version answers them: on average just the rate that is allowed."""
    rollouts, alpha = cases(30, 1000), 1 - CONFIDENCE
    alarms = 0
    for seed in range(rollouts):
        traffic = Traffic(random.Random(seed), clients, pods, BOUND, 0.0)
        alarms += any(is_violated(traffic.answer(20), BOUND, alpha) for _ in range(100))
    assert alarms / rollouts <= alpha + 3 * math.sqrt(alpha * CONFIDENCE / rollouts)


@pytest.mark.parametrize("pods", [1, 2, 10])
def test_one_broken_client_with_many_requests_rejects_no_version(pods: int) -> None:
    share = [(500 // pods, 500 // pods)] * pods
    for others in (0, 10, 100, 1000):
        arm = build_arm([*share, *[(1, 0)] * others], pods)
        assert not is_violated(arm, BOUND, 0.01), others


@pytest.mark.parametrize(
    ("pods", "rate", "within"), [(1, 1.0, 40), (3, 1.0, 40), (3, 0.5, 200), (3, 0.2, 600)]
)
def test_a_version_that_is_bad_for_all_clients_is_seen_soon(pods: int, rate: float, within: int) -> None:
    alarms = []
    for seed in range(20):
        traffic = Traffic(random.Random(seed), 100, pods, 0.0, rate)
        requests = next(
            (n for n in range(5, 3000, 5) if is_violated(traffic.answer(5), BOUND, 0.005)), math.inf
        )
        alarms.append(requests)
    assert sorted(alarms)[10] <= within


def test_requests_of_their_own_keys_are_tested_as_independent_ones() -> None:
    arm = build_arm([(1, 1)] * 3 + [(1, 0)] * 17, pods=5)
    assert is_violated(arm, BOUND, 0.01) == is_crossed(20, 3, BOUND, 0.01)
    assert failing_keys(arm) == pytest.approx(3)
    assert failing_keys(Arm()) == 0


def test_a_candidate_is_worse_only_by_more_than_its_share_of_the_failures() -> None:
    good, bad = build_arm([(1, 0)] * 190), build_arm([(1, 1)] * 12)
    assert is_worse(bad, good, 0.01)
    assert is_worse(bad, Arm(), 0.01)
    assert not is_worse(bad, build_arm([(1, 1)] * 12), 0.01)
    assert not is_worse(good, bad, 0.01)
    assert not is_worse(good, good, 0.01)
