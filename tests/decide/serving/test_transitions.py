"""The transition table of a rollout: which transition applies in each state, and what it changes."""

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.alias_states import ALIAS, NOW, ago, candidate, context, fleet, record, target, version
from simulation.serving_world import ROLLOUT, digest_of

from tunesmith.decide.serving.record import AliasRecord, Counts, PodTally, Reading, RolloutCandidate, Tally
from tunesmith.decide.serving.rollout import (
    TRANSITIONS,
    AliasContext,
    advance,
    evaluate_checks,
    next_check_time,
    step_index,
)
from tunesmith_contract.agent import PROOF_FAILED

BOTH = fleet(active=("one", "two"))
BAD = {"requests": 40, "errors": 40}
PASSED = {"requests": 40, "errors": 0}


class State(NamedTuple):
    """A state of an alias, and the first transition that applies to it."""

    title: str
    record: AliasRecord
    context: AliasContext
    transition: str | None


def analysis(**fields: Any) -> dict[str, Any]:
    """The usual rollout with other settings of its analysis."""
    return {"rollout": ROLLOUT | {"analysis": {"interval": "10s", "minimumRequests": 0} | fields}}


STATES = [
    State("nothing named, nothing served", record(), context(), None),
    State("a first version is admitted", record(), context(target("one", 1)), "admit"),
    State("what is not admitted is not loaded", record(), context(target("one", admitted=False)), None),
    State("a stable version stays", record("one"), context(target("one", 1), BOTH), None),
    State("a stable version outlives its source", record("one"), context(pods=BOTH), None),
    State("a new version is admitted", record("one"), context(target("two"), BOTH), "admit"),
    State(
        "a rejected digest is not admitted", record("one", rejected="two"), context(target("two"), BOTH), None
    ),
    State(
        "another digest than the rejected", record("one", rejected="two"), context(target("three")), "admit"
    ),
    State(
        "the same artifact elsewhere", record("one"), context(target("one", 1, "pvc://other/one")), "relocate"
    ),
    State(
        "an unreachable location is not read",
        record("one"),
        context(target("one", 1, "pvc://other/one", reachable=False, admitted=False)),
        None,
    ),
    State("a first version that loads", record(rolling=candidate("two")), context(target("two")), None),
    State(
        "a first version that is active",
        record(rolling=candidate("two")),
        context(target("two"), fleet(active=("two",))),
        "promote",
    ),
    State(
        "a candidate that is active", record("one", candidate("two")), context(target("two"), BOTH), "step"
    ),
    State(
        "a candidate that is active on some pods only",
        record("one", candidate("two")),
        context(target("two"), fleet(active=("one",), loading=("two",))),
        None,
    ),
    State(
        "no pod is ready",
        record("one", candidate("two")),
        context(target("two"), fleet(active=("two",), ready=False)),
        None,
    ),
    State(
        "a paused candidate", record("one", candidate("two")), context(target("two"), BOTH, paused=True), None
    ),
    State(
        "a candidate whose source names another",
        record("one", candidate("two", 5)),
        context(target("three"), BOTH),
        "withdraw",
    ),
    State(
        "even if the other is not admitted",
        record("one", candidate("two", 5)),
        context(target("three", admitted=False), BOTH),
        "withdraw",
    ),
    State("a candidate without a source", record("one", candidate("two", 5, 30)), context(pods=BOTH), None),
    State(
        "a candidate that was rejected",
        record("one", candidate("two", 5)),
        context(target("two", rejected=True, admitted=False), BOTH),
        "withdraw",
    ),
    State(
        "a candidate elsewhere",
        record("one", candidate("two", 5)),
        context(target("two", uri="pvc://other/two"), BOTH),
        "relocate",
    ),
    State(
        "an interval that is over",
        record("one", candidate("two", 5, 30, last_check=ago(10))),
        context(target("two"), BOTH),
        "check",
    ),
    State(
        "an interval that is not over",
        record("one", candidate("two", 5, 30, last_check=ago(9))),
        context(target("two"), BOTH),
        None,
    ),
    State(
        "a pause that ends within an interval",
        record("one", candidate("two", 5, 60, last_check=ago(1))),
        context(target("two"), BOTH),
        "check",
    ),
    State(
        "a failed check",
        record("one", candidate("two", 5, 30, failed_checks=1, **BAD)),
        context(target("two"), BOTH),
        "reject",
    ),
    State(
        "a failed check that is tolerated",
        record("one", candidate("two", 5, 30, failed_checks=1, **BAD)),
        context(target("two"), BOTH, **analysis(failureLimit=1)),
        None,
    ),
    State(
        "a failed check of a paused candidate",
        record("one", candidate("two", 5, 30, failed_checks=1, **BAD)),
        context(target("two"), BOTH, paused=True),
        "reject",
    ),
    State(
        "a pod that refutes the adapter",
        record("one", candidate("two")),
        context(target("two"), fleet(failed={"two": (PROOF_FAILED, "same answers")})),
        "reject",
    ),
    State(
        "a pod that can't load the adapter",
        record("one", candidate("two")),
        context(target("two"), fleet(failed={"two": ("ArtifactNotFound", "gone")})),
        None,
    ),
    State(
        "a pause that is over",
        record("one", candidate("two", 5, 60, **PASSED)),
        context(target("two"), BOTH),
        "step",
    ),
    State(
        "a pause that is not over",
        record("one", candidate("two", 5, 59, **PASSED)),
        context(target("two"), BOTH),
        None,
    ),
    State(
        "a step without enough requests",
        record("one", candidate("two", 5, 60, requests=19)),
        context(target("two"), BOTH, **analysis(minimumRequests=20)),
        None,
    ),
    State(
        "a step with a failing check",
        record("one", candidate("two", 5, 60, **BAD)),
        context(target("two"), BOTH, **analysis(failureLimit=9)),
        None,
    ),
    State(
        "the last step",
        record("one", candidate("two", 25, 120, **PASSED)),
        context(target("two"), BOTH),
        "promote",
    ),
]


def first_transition(state: State) -> str | None:
    return next((row.name for row in TRANSITIONS if row.applies(state.record, state.context)), None)


@pytest.mark.parametrize("state", STATES, ids=[state.title for state in STATES])
def test_the_first_transition_that_applies(state: State) -> None:
    assert first_transition(state) == state.transition


def test_every_transition_has_its_states() -> None:
    assert {state.transition for state in STATES} - {None} == {row.name for row in TRANSITIONS}


def apply(name: str, before: AliasRecord, inputs: AliasContext) -> tuple[AliasRecord, str | None]:
    """The record after one transition, and the reason of its event."""
    (row,) = (row for row in TRANSITIONS if row.name == name)
    assert row.applies(before, inputs)
    after, event = row.apply(before, inputs)
    return after, str(event.reason) if event else None


def test_withdraw_forgets_the_candidate_without_rejecting_it() -> None:
    after, reason = apply("withdraw", record("one", candidate("two", 25)), context(target("three"), BOTH))
    assert (after, reason) == (record("one"), "Withdrawn")


def test_relocate_changes_the_location_alone() -> None:
    before = record("one", candidate("two", 25, 30))
    after, reason = apply("relocate", before, context(target("two", uri="pvc://other/two"), BOTH))
    assert before.candidate is not None
    moved = before.candidate.model_copy(update={"version": version("two", 2, "pvc://other/two")})
    assert (after, reason) == (before.model_copy(update={"candidate": moved}), None)


def test_check_counts_requests_and_failures() -> None:
    pods = fleet(active=("one", "two"), counters={"two": (40, 40)}, pods=2)
    before = record("one", candidate("two", 5, 30, last_check=ago(10)))
    after, reason = apply("check", before, context(target("two"), pods))
    assert after.candidate is not None
    assert after.candidate.tally.total == Counts(requests=80, errors=80)
    assert (after.candidate.failed_checks, after.candidate.last_check) == (1, NOW)
    assert (after.candidate.weight, after.candidate.began, reason) == (5, ago(30), None)


def test_reject_remembers_version_cause_and_time() -> None:
    before = record("one", candidate("two", 5, 30, failed_checks=1, **BAD))
    after, reason = apply("reject", before, context(target("two"), BOTH))
    assert reason == "RolledBack"
    assert (after.stable, after.candidate) == (before.stable, None)
    assert after.rejection is not None
    assert (after.rejection.version, after.rejection.reason) == (version("two", 2), "ErrorRateTooHigh")
    assert "40 of 40 requests failed at weight 5" in after.rejection.message
    assert after.rejection.time == NOW


def test_reject_names_the_pod_that_refuted_the_adapter() -> None:
    pods = fleet(failed={"two": (PROOF_FAILED, "same answers")})
    after, _ = apply("reject", record("one", candidate("two")), context(target("two"), pods))
    assert after.rejection is not None
    assert (after.rejection.reason, after.rejection.message) == ("NotActive", "same answers (pod pod-0)")


def test_admit_starts_at_weight_0() -> None:
    after, reason = apply("admit", record("one"), context(target("two"), BOTH))
    expected = RolloutCandidate(version=version("two", 2), began=NOW, last_check=NOW)
    assert (after.candidate, reason) == (expected, "Loading")


def test_promote_makes_the_candidate_stable() -> None:
    after, reason = apply(
        "promote", record("one", candidate("two", 25, 120, **PASSED)), context(target("two"), BOTH)
    )
    assert (after.stable, after.promoted, after.candidate, reason) == (
        version("two", 2),
        NOW,
        None,
        "Promoted",
    )


def test_step_raises_the_weight_and_counts_from_zero() -> None:
    pods = fleet(active=("one", "two"), counters={"two": (7, 1)})
    before = record("one", candidate("two", 5, 60, failed_checks=0, **PASSED))
    after, reason = apply("step", before, context(target("two"), pods))
    assert after.candidate is not None
    assert (after.candidate.weight, after.candidate.began, after.candidate.failed_checks) == (25, NOW, 0)
    assert (after.candidate.tally.total, reason) == (Counts(), "StepStarted")
    assert after.candidate.tally.pods["uid-0"].latest == Counts(requests=7, errors=1)


def test_several_transitions_apply_in_one_pass() -> None:
    """The old candidate is withdrawn, and the new one admitted and promoted, since its only step has no pause."""
    pods = fleet(active=("one", "two", "three"))
    inputs = context(target("three", 3), pods, rollout={"steps": [{"weight": 100}]})
    after, events = advance(record("one", candidate("two")), inputs)
    assert after.stable == version("three", 3)
    assert [str(event.reason) for event in events] == ["Withdrawn", "Loading", "Promoted"]


@given(
    weight=st.sampled_from([0, 5, 25]),
    age=st.integers(0, 300),
    requests=st.integers(0, 200),
    errors=st.integers(0, 200),
    failed_checks=st.integers(0, 2),
    active=st.booleans(),
    paused=st.booleans(),
    admitted=st.booleans(),
    word=st.sampled_from(["one", "two", "three"]),
)
def test_a_pass_comes_to_rest_and_gives_weight_only_to_what_is_active(
    weight: int,
    age: int,
    requests: int,
    errors: int,
    failed_checks: int,
    active: bool,
    paused: bool,
    admitted: bool,
    word: str,
) -> None:
    rolling = candidate(
        "two",
        weight,
        age,
        requests,
        min(errors, requests),
        failed_checks=failed_checks,
        last_check=ago(age / 2),
    )
    words = ("one", "two", "three")
    pods = fleet(active=words) if active else fleet(loading=words)
    inputs = context(target(word, words.index(word) + 1, admitted=admitted), pods, paused=paused)
    before = record("one", rolling)
    after, _ = advance(before, inputs)
    assert advance(after, inputs) == (after, ())
    raised = after.candidate and after.candidate.weight > (weight if word == "two" else 0)
    if raised or after.stable != before.stable:
        assert active
        assert not paused


@pytest.mark.parametrize(
    ("weight", "last_check", "age", "due"),
    [
        (0, 0, 0, None),
        (5, 0, 0, -10),
        (5, 5, 5, -5),
        (5, 5, 58, -2),  # the pause of a minute ends before the interval
        (5, 5, 90, -5),
    ],
)
def test_time_of_the_next_check(weight: int, last_check: float, age: float, due: float | None) -> None:
    rolling = candidate("two", weight, age, last_check=ago(last_check))
    assert next_check_time(rolling, context().adapter) == (None if due is None else ago(due))


@pytest.mark.parametrize(("weight", "index"), [(0, 0), (5, 0), (10, 0), (25, 1), (99, 1), (100, 2)])
def test_index_of_the_step(weight: int, index: int) -> None:
    assert step_index(candidate("two", weight), context().adapter) == index


@pytest.mark.parametrize(
    ("requests", "errors", "minimum", "verdict"),
    [
        (0, 0, 0, "Inconclusive"),
        (1, 0, 0, "Pass"),
        (19, 0, 20, "Inconclusive"),
        (20, 0, 20, "Pass"),
        (20, 20, 100, "Fail"),
        (200, 4, 20, "Pass"),  # exactly the allowed rate of 2 %
    ],
)
def test_verdict_of_a_check(requests: int, errors: int, minimum: int, verdict: str) -> None:
    adapter = context(**analysis(minimumRequests=minimum)).adapter
    (outcome,) = evaluate_checks(candidate("two", 5, requests=requests, errors=errors), adapter)
    assert (outcome.metric, outcome.verdict.value) == ("ErrorRate", verdict)
    assert outcome.value == (errors / requests if requests else None)


def test_without_checks_there_is_no_verdict() -> None:
    assert evaluate_checks(candidate("two", 5, **BAD), context(**analysis(checks=[])).adapter) == ()


def reading(requests: int, errors: int = 0, boot: str = "a") -> Reading:
    return Reading(boot_id=boot, counts=Counts(requests=requests, errors=errors))


@pytest.mark.parametrize(
    ("readings", "uids", "total"),
    [
        pytest.param({"p": reading(15, 3)}, {"p"}, (10, 2), id="what came on top of the base"),
        pytest.param({}, {"p"}, (5, 1), id="a pod without a reading keeps its counters"),
        pytest.param({}, set(), (5, 1), id="a pod that is gone still counts"),
        pytest.param(
            {"p": reading(4, 4, "b")}, {"p"}, (9, 5), id="an agent that was restarted counts from zero"
        ),
        pytest.param({"p": reading(9)}, {"p"}, (5, 1), id="an older reading changes nothing"),
        pytest.param({"p": reading(10, 2), "q": reading(2, 1)}, {"p", "q"}, (7, 2), id="another pod"),
    ],
)
def test_tally(readings: dict[str, Reading], uids: set[str], total: tuple[int, int]) -> None:
    counters = PodTally(boot_id="a", base=Counts(requests=5, errors=1), latest=Counts(requests=10, errors=2))
    after = Tally(pods={"p": counters}).absorb(readings, frozenset(uids))
    assert after.total == Counts(requests=total[0], errors=total[1])
    assert after.restart().total == Counts()


def test_the_stored_keys_stay() -> None:
    before = record("one", candidate("two", 5, 30, failed_checks=2), rejected="three")
    document = json.loads(before.to_json())
    assert document.keys() == {"name", "stable", "promoted", "trial", "rejection"}
    assert document["trial"].keys() == {"version", "weight", "began", "looked", "failedLooks", "tally"}
    assert AliasRecord.model_validate(document) == before
    assert document["name"] == ALIAS
    assert document["stable"]["digest"] == digest_of("one")
