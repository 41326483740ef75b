"""The transition table of a rollout: which transition applies in each state, and what it changes."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.alias_states import (
    KNOWN_RUNS,
    NOW,
    ago,
    arm,
    candidate,
    context,
    fleet,
    record,
    target,
    version,
)
from simulation.serving_world import ROLLOUT

from tunesmith.decide.serving.evidence import Counts, Evidence
from tunesmith.decide.serving.records.elapsed import next_pass_seconds
from tunesmith.decide.serving.records.record import AliasRecord, Lift, RolloutCandidate, Watch
from tunesmith.decide.serving.rollout.analysis import evaluate_checks
from tunesmith.decide.serving.rollout.transition import QUORUM_SECONDS, AliasContext
from tunesmith.decide.serving.rollout.transitions import TRANSITIONS, advance, exceeded_limit, step_index
from tunesmith_contract.agent import PROOF_FAILED
from tunesmith_contract.shared_rules.verdict import Verdict

BOTH = fleet(active=("one", "two"))
BAD: dict[str, Any] = {"requests": 40, "errors": 40, "verdict": Verdict.FAIL, "reason": "ErrorRateTooHigh"}
PASSED: dict[str, Any] = {"requests": 40, "errors": 0}
COUNTED = Evidence(candidate=arm(0).model_copy(update={"runs": KNOWN_RUNS}))
WATCHED_BAD = Watch(
    previous=version("zero", 7),
    evidence=Evidence(candidate=arm(40, 40).model_copy(update={"runs": KNOWN_RUNS})),
)


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
        record("one", candidate("two", 5, 30, check_seconds=10)),
        context(target("two"), BOTH),
        "check",
    ),
    State(
        "an interval that is not over",
        record("one", candidate("two", 5, 30, check_seconds=9)),
        context(target("two"), BOTH),
        None,
    ),
    State(
        "a pause that ends within an interval",
        record("one", candidate("two", 5, 60, check_seconds=1, is_last=False)),
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
        "two of three pods refute the adapter",
        record("one", candidate("two")),
        context(target("two"), fleet(failed={"two": (PROOF_FAILED, "same answers")}, pods=3)),
        "reject",
    ),
    State(
        "a breaker that is open",
        record("one", candidate("two", 5, 60, **PASSED)),
        context(target("two"), fleet(active=("one", "two"), tripped=("two",))),
        None,
    ),
    State(
        "a check that was inconclusive",
        record("one", candidate("two", 5, 60, verdict=Verdict.INCONCLUSIVE)),
        context(target("two"), BOTH),
        None,
    ),
    State(
        "more inconclusive checks than allowed",
        record("one", candidate("two", 5, 60, inconclusive_checks=3, **PASSED)),
        context(target("two"), BOTH, **analysis(inconclusiveLimit=2)),
        None,
    ),
    State(
        "a rollout that an action paused",
        record("one", candidate("two", 5, 60, **PASSED), paused=True),
        context(target("two"), BOTH),
        None,
    ),
    State(
        "a lifted rejection",
        record("one", rejected="two", lifts=(Lift(digest=version("two").digest, time=NOW),)),
        context(target("two"), BOTH),
        "admit",
    ),
    State(
        "a promoted version that violates the guardrail",
        record("one", watch=WATCHED_BAD),
        context(target("one", 1), BOTH),
        "revert",
    ),
    State(
        "one that violates it after the window",
        record("one", watch=WATCHED_BAD.model_copy(update={"previous": None})),
        context(target("one", 1), BOTH),
        None,
    ),
    State(
        "a window that is over",
        record("one", watch=Watch(previous=version("zero", 7), seconds=600)),
        context(target("one", 1), BOTH),
        "close",
    ),
    State(
        "an interval within the window",
        record("one", watch=Watch(previous=version("zero", 7), check_seconds=10, evidence=COUNTED)),
        context(target("one", 1), BOTH, **analysis()),
        "observe",
    ),
    State(
        "the previous version is wanted again",
        record("one", previous="zero"),
        context(target("zero", 7), fleet(active=("zero", "one"))),
        "return",
    ),
    State(
        "the previous version is wanted again, and was dropped by the pods",
        record("one", previous="zero"),
        context(target("zero", 7), fleet(active=("one",))),
        "admit",
    ),
    State(
        "a version of an earlier resource that is active",
        record("one", restored=True),
        context(target("one", 1), BOTH),
        "confirm",
    ),
    State(
        "a candidate beside a version of an earlier resource that loads",
        record("one", candidate("two"), restored=True),
        context(target("two"), fleet(active=("two",), loading=("one",))),
        None,
    ),
    State(
        "a version of an earlier resource that can't be loaded",
        record("one", candidate("two", waiting_seconds=QUORUM_SECONDS), restored=True),
        context(target("two"), fleet(active=("two",), failed={"one": ("ArtifactNotFound", "gone")})),
        "abandon",
    ),
    State(
        "a version that is stable again and not counted yet",
        record("one", watch=Watch(previous=version("zero", 7))),
        context(target("one", 1), BOTH),
        "observe",
    ),
    State(
        "a stable version that is not counted yet",
        record("one", watch=Watch()),
        context(target("one", 1), BOTH),
        "renew",
    ),
    State(
        "counts of a stable version after a while",
        record("one", watch=Watch(seconds=600, evidence=COUNTED)),
        context(target("one", 1), fleet(active=("one",), counters={"one": (9, 0)})),
        "renew",
    ),
    State(
        "more pods than before",
        record("one", candidate("two", most_active=0)),
        context(target("two"), fleet(active=("two",), loading=("one",))),
        "progress",
    ),
    State(
        "pods without a connected agent",
        record("one", candidate("two")),
        context(target("two"), fleet(active=("two",), connected=False)),
        None,
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
        record("one", candidate("two", 5, 60, requests=19, verdict=Verdict.INCONCLUSIVE)),
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
    elsewhere = {"collect"}  # test_rollout.py: it takes an agent that has ended
    assert {state.transition for state in STATES} - {None} == {row.name for row in TRANSITIONS} - elsewhere


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
    before = record("one", candidate("two", 5, 30, check_seconds=10))
    after, reason = apply("check", before, context(target("two"), pods))
    assert after.candidate is not None
    total = after.candidate.evidence.candidate.total
    assert (total.requests, total.errors, after.candidate.verdict) == (80, 80, Verdict.FAIL)
    assert (after.candidate.failed_checks, after.candidate.check_seconds) == (1, 0)
    assert (after.candidate.weight, after.candidate.began, reason) == (5, ago(30), None)


def test_reject_remembers_version_cause_and_time() -> None:
    before = record(
        "one", candidate("two", 5, 30, failed_checks=1, message="40 of 40 requests failed", **BAD)
    )
    after, reason = apply("reject", before, context(target("two"), BOTH))
    assert reason == "RolledBack"
    assert (after.stable, after.candidate) == (before.stable, None)
    (rejected,) = after.rejections
    assert (rejected.version, rejected.reason) == (version("two", 2), "ErrorRateTooHigh")
    assert rejected.message == "40 of 40 requests failed, at weight 5"
    assert rejected.time == NOW


def test_reject_names_the_pod_that_refuted_the_adapter() -> None:
    pods = fleet(failed={"two": (PROOF_FAILED, "same answers")})
    after, _ = apply("reject", record("one", candidate("two")), context(target("two"), pods))
    assert (after.rejections[0].reason, after.rejections[0].message) == (
        "NotActive",
        "same answers (pod pod-0)",
    )


def test_revert_rejects_the_promoted_version_and_starts_the_step_of_a_candidate_again() -> None:
    before = record("one", candidate("two", 5, 30, **PASSED), watch=WATCHED_BAD)
    after, reason = apply("revert", before, context(target("two"), BOTH))
    assert reason == "RolledBack"
    assert (after.stable, after.watch) == (version("zero", 7), Watch())
    assert after.is_rejected(version("one").digest)
    assert after.candidate is not None
    assert (after.candidate.weight, after.candidate.step_seconds) == (5, 0)
    assert after.candidate.evidence.candidate.total == Counts()


def test_admit_starts_at_weight_0() -> None:
    after, reason = apply("admit", record("one"), context(target("two"), BOTH))
    expected = RolloutCandidate(version=version("two", 2), began=NOW)
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
    assert after.watch.previous == version("one")


def test_promote_keeps_no_previous_version_without_a_window() -> None:
    inputs = context(target("two"), BOTH, rollout=ROLLOUT | {"rollbackWindow": "0s"})
    after, _ = apply("promote", record("one", candidate("two", 25, 120, **PASSED)), inputs)
    assert after.watch.previous is None


def test_step_raises_the_weight_and_counts_from_zero() -> None:
    pods = fleet(active=("one", "two"), counters={"two": (7, 1)})
    before = record("one", candidate("two", 5, 60, failed_checks=0, **PASSED))
    after, reason = apply("step", before, context(target("two"), pods))
    assert after.candidate is not None
    assert (after.candidate.weight, after.candidate.began, after.candidate.failed_checks) == (25, NOW, 0)
    assert (after.candidate.evidence.candidate.total, reason) == (Counts(), "StepStarted")
    assert after.candidate.evidence.candidate.runs["boot-0"].latest.requests == 7


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
        check_seconds=age / 2,
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
    ("weight", "check_seconds", "age", "due"),
    [
        (0, 0, 0, 10),
        (5, 0, 0, 10),
        (5, 5, 5, 5),
        (5, 0, 58, 2),  # the pause of a minute ends before the interval
        (5, 5, 90, 5),
    ],
)
def test_time_of_the_next_pass(weight: int, check_seconds: float, age: float, due: float) -> None:
    rolling = candidate("two", weight, age, check_seconds=check_seconds)
    assert next_pass_seconds(record("one", rolling), context().adapter, QUORUM_SECONDS) == due


def test_nothing_is_due_while_a_stable_version_answers() -> None:
    assert next_pass_seconds(record("one"), context().adapter, QUORUM_SECONDS) is None


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
    (outcome,) = evaluate_checks(Evidence(candidate=arm(requests, errors)), adapter)
    assert (outcome.metric, outcome.verdict.value) == ("ErrorRate", verdict)
    assert outcome.value == (errors / requests if requests else None)


def test_without_checks_there_is_no_verdict() -> None:
    assert evaluate_checks(Evidence(candidate=arm(40, 40)), context(**analysis(checks=[])).adapter) == ()


def test_limits_of_checks_without_a_result() -> None:
    adapter = context(**analysis(inconclusiveLimit=2, consecutiveErrorLimit=1)).adapter
    assert exceeded_limit(candidate("two", 5, inconclusive_checks=2, unmeasured_checks=1), adapter) == ""
    assert "inconclusiveLimit" in exceeded_limit(candidate("two", 5, inconclusive_checks=3), adapter)
    assert "consecutiveErrorLimit" in exceeded_limit(candidate("two", 5, unmeasured_checks=2), adapter)


def test_a_record_is_read_as_it_was_written() -> None:
    before = record("one", candidate("two", 5, 30, failed_checks=2), rejected="three", previous="zero")
    assert AliasRecord.read(before.to_json()) == before
