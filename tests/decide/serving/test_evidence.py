"""Counters of agents become sums of a step: each request once, whatever happens to pods and agents."""

import pytest

from tunesmith.decide.serving.evidence import Arm, Counts, Reading, RunCounts
from tunesmith_contract.agent import VersionCounters

DIGEST = "sha256:" + "0" * 64


def reading(requests: int, errors: int = 0, boot: str = "a", pod: str = "p") -> Reading:
    return Reading(pod_uid=pod, boot_id=boot, counts=Counts(requests=requests, errors=errors))


KNOWN = Arm(
    total=Counts(requests=5, errors=1),
    sources=1,
    runs={"a": RunCounts(pod_uid="p", latest=Counts(requests=10, errors=2), counted=True)},
)


@pytest.mark.parametrize(
    ("readings", "uids", "total"),
    [
        pytest.param([reading(15, 3)], {"p"}, (10, 2), id="what came on top"),
        pytest.param([], {"p"}, (5, 1), id="a pod without a reading"),
        pytest.param([], set(), (5, 1), id="a pod that is gone still counts"),
        pytest.param([reading(4, 4, "b")], {"p"}, (9, 5), id="an agent that was restarted counts from zero"),
        pytest.param([reading(12, 3), reading(4, 4, "b")], {"p"}, (11, 6), id="and its last words count"),
        pytest.param([reading(12, 3)], set(), (7, 2), id="the last words of a pod that is gone"),
        pytest.param([reading(3, 1)], {"p"}, (8, 2), id="counters that were forgotten begin anew"),
        pytest.param([reading(10, 2), reading(2, 1, "c", "q")], {"p", "q"}, (7, 2), id="another pod"),
    ],
)
def test_each_request_counts_once(readings: list[Reading], uids: set[str], total: tuple[int, int]) -> None:
    after = KNOWN.fold(readings, frozenset(uids), from_zero=True)
    assert (after.total.requests, after.total.errors) == total
    again = after.fold(readings, frozenset(uids), from_zero=True)
    assert again == after
    assert again.restart().total == Counts()


def test_requests_of_a_stable_version_before_the_step_do_not_count() -> None:
    first = Arm().fold([reading(1_000_000, 500)], frozenset({"p"}), from_zero=False)
    assert first.total == Counts()
    second = first.fold([reading(1_000_010, 501)], frozenset({"p"}), from_zero=False)
    assert (second.total.requests, second.total.errors) == (10, 1)
    restarted = second.fold([reading(7, 7, "b")], frozenset({"p"}), from_zero=False)
    assert (restarted.total.requests, restarted.total.errors) == (17, 8)


def test_runs_of_agents_that_ended_are_forgotten_once_nobody_reports_them() -> None:
    later = KNOWN.fold([reading(1, boot="b")], frozenset({"p"}), from_zero=True)
    assert set(later.runs) == {"b"}
    assert later.fold([], frozenset(), from_zero=True).runs == {}


def test_requests_of_an_agent_that_tells_no_keys_are_keys_of_their_own() -> None:
    counters = VersionCounters(alias="a", digest=DIGEST, requests=9, errors=2, abandoned=1)
    counts = Counts.of(counters)
    assert (counts.keys, counts.requests_squared, counts.failures_squared, counts.requests_failures) == (
        9,
        9,
        3,
        3,
    )
    assert Counts.of(counters.model_copy(update={"errors": 99})).failures == 9
