"""Status of one alias: phase and reason by precedence, shares, history."""

from typing import Any, NamedTuple

import pytest
from simulation.alias_states import ago, arm, candidate, context, fleet, record, target, version
from simulation.serving_world import digest_of

from tunesmith.api.adapterdeployment import MAX_HISTORY, MAX_REJECTED
from tunesmith.decide.serving.admission.targets import TargetVersion, VersionRecord
from tunesmith.decide.serving.evidence import Evidence
from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.decide.serving.records.record import AliasRecord, Watch
from tunesmith.decide.serving.rollout.transition import AliasContext
from tunesmith.decide.serving.status.alias import MAX_MESSAGE, build_adapter_status, summarize_phase
from tunesmith_contract.shared_rules.verdict import Verdict

ONE = fleet(active=("one",))
BOTH = fleet(active=("one", "two"))
BLOCKED = TargetVersion(reason="WaitingForSource", message="FineTuneJob tune does not exist")
REJECTED: dict[str, Any] = {
    "admitted": False,
    "rejected": True,
    "reason": "DigestRejected",
    "message": "rolled back",
}
UNREACHABLE: dict[str, Any] = {"admitted": False, "reason": "SourceUnreachable", "message": "add {claim: a}"}
NOT_EVALUATED: dict[str, Any] = {
    "admitted": False,
    "reason": "NoPassingEvalRun",
    "message": "an EvalRun is needed",
}


class Case(NamedTuple):
    """A state of an alias, and its phase, reason and a part of the message."""

    title: str
    record: AliasRecord
    context: AliasContext
    phase: str
    reason: str
    message: str


CASES = [
    Case("no artifact yet", record(), context(BLOCKED), "Blocked", "WaitingForSource", "tune does not exist"),
    Case(
        "a next version that is blocked",
        record("one"),
        context(target("two", **NOT_EVALUATED), ONE),
        "Blocked",
        "NoPassingEvalRun",
        "an EvalRun is needed",
    ),
    Case(
        "a rejected version that pods still hold",
        record("one", rejected="two"),
        context(target("two", **REJECTED), BOTH),
        "RollingBack",
        "DigestRejected",
        "rolled back",
    ),
    Case(
        "a rejected version that no pod holds",
        record("one", rejected="two"),
        context(target("two", **REJECTED), ONE),
        "RolledBack",
        "DigestRejected",
        "rolled back",
    ),
    Case(
        "a stable version whose location is lost",
        record("one"),
        context(target("one", 1, **UNREACHABLE), ONE),
        "Degraded",
        "SourceUnreachable",
        "add {claim: a}",
    ),
    Case(
        "a stable version that a pod can't load",
        record("one"),
        context(target("one", 1), fleet(failed={"one": ("EngineRefused", "rank 128")})),
        "Degraded",
        "LoadFailed",
        "on pod pod-0: EngineRefused: rank 128",
    ),
    Case(
        "a stable version that was not evaluated",
        record("one"),
        context(target("one", 1), ONE),
        "Stable",
        "Unevaluated",
        "no EvalRun has passed it",
    ),
    Case(
        "a stable version with an effect too small to be proved",
        record("one"),
        context(target("one", 1), fleet(active=("one",), unproven=("one",))),
        "Stable",
        "Unproven",
        "answers all requests; its effect is small",
    ),
    Case(
        "a candidate with an effect too small to be proved",
        record("one", candidate("two", 5)),
        context(target("two"), fleet(active=("one", "two"), unproven=("two",))),
        "Progressing",
        "StepStarted",
        "answers 5 % of the requests; unproven",
    ),
    Case(
        "a paused candidate, whatever else",
        record("one", candidate("two", 5)),
        context(target("two"), fleet(failed={"two": ("X", "y")}), paused=True),
        "Paused",
        "Paused",
        "stays at 5 %",
    ),
    Case(
        "a candidate that a pod can't load",
        record("one", candidate("two")),
        context(target("two"), fleet(active=("one",), failed={"two": ("ArtifactNotFound", "gone")})),
        "Loading",
        "LoadFailed",
        "ArtifactNotFound: gone",
    ),
    Case(
        "a candidate that loads",
        record("one", candidate("two")),
        context(target("two"), fleet(active=("one",), loading=("two",), pods=3)),
        "Loading",
        "Loading",
        "is active on 0 of 3 ready pods",
    ),
    Case(
        "a candidate with weight that a pod lost",
        record("one", candidate("two", 5)),
        context(target("two"), ONE),
        "Progressing",
        "NotActive",
        "is active on 0 of 1 ready pods",
    ),
    Case(
        "a candidate without enough requests",
        record(
            "one",
            candidate(
                "two",
                5,
                60,
                verdict=Verdict.INCONCLUSIVE,
                reason="WaitingForRequests",
                message="has answered 3 of the 20 requests",
            ),
        ),
        context(target("two"), BOTH),
        "Progressing",
        "WaitingForRequests",
        "3 of the 20 requests",
    ),
    Case(
        "a candidate without progress",
        record("one", candidate("two", waiting_seconds=3600)),
        context(target("two"), fleet(active=("one",), loading=("two",), pods=3)),
        "Loading",
        "ProgressDeadlineExceeded",
        "no progress within 1h: version 2",
    ),
    Case(
        "a candidate with too many inconclusive checks",
        record(
            "one", candidate("two", 5, inconclusive_checks=4, message="has answered 3 of the 20 requests")
        ),
        context(target("two"), BOTH, rollout={"analysis": {"inconclusiveLimit": 3}}),
        "Progressing",
        "AnalysisLimitExceeded",
        "inconclusiveLimit is exceeded",
    ),
    Case(
        "a candidate whose stable version fails too",
        record(
            "one",
            candidate("two", 5, verdict=Verdict.INCONCLUSIVE, reason="StableFailsToo", message="both fail"),
        ),
        context(target("two"), BOTH),
        "Progressing",
        "StableFailsToo",
        "stays at its step: both fail",
    ),
    Case(
        "a candidate that no pod can ever load",
        record("one", candidate("two")),
        context(
            target("two"),
            fleet(active=("one",), failed={"two": ("RankTooHigh", "write maxRank: 128")}, permanent=True),
        ),
        "Blocked",
        "Incompatible",
        "write maxRank: 128",
    ),
    Case(
        "a stable version that fails after its window",
        record("one", watch=Watch(evidence=Evidence(candidate=arm(40, 40)))),
        context(target("one", 1), ONE),
        "Degraded",
        "ErrorRateTooHigh",
        "40 of 40 requests failed",
    ),
    Case(
        "a candidate on its way",
        record("one", candidate("two", 5, requests=20)),
        context(target("two"), BOTH),
        "Progressing",
        "StepStarted",
        "answers 5 % of the requests",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_phase(case: Case) -> None:
    summary = summarize_phase(case.record, case.context, [], 0)
    assert (summary.phase, summary.reason) == (case.phase, case.reason)
    assert case.message in summary.message


@pytest.mark.parametrize(
    ("pods", "generation", "phase"),
    [
        (ONE, 1, "Stable"),
        (ONE, 2, "Progressing"),
        (fleet(), 1, "Progressing"),
        (fleet(active=("one",), connected=False), 2, "Stable"),
    ],
    ids=["it has", "it was told an earlier state", "it has not loaded it", "there is none to ask"],
)
def test_a_version_is_stable_once_a_ready_pod_has_confirmed_it(
    pods: Fleet, generation: int, phase: str
) -> None:
    summary = summarize_phase(record("one"), context(target("one", 1), pods), [], generation)
    assert summary.phase == phase


def past(word: str, number: int, **fields: Any) -> VersionRecord:
    return VersionRecord("expenses", version(word, number), **({"evaluated": "Pass"} | fields))


def test_a_stable_version_with_a_verdict_is_promoted() -> None:
    status = build_adapter_status(record("one"), context(target("one", 1), ONE), [past("one", 1)], 0)
    assert (status.phase, status.reason, status.evaluated) == ("Stable", "Promoted", "Pass")


def test_shares_add_up_to_all_requests() -> None:
    status = build_adapter_status(
        record("one", candidate("two", 25, 30)), context(target("two"), BOTH), [], 0
    )
    assert status.stable is not None
    assert status.candidate is not None
    assert (status.stable.weight, status.candidate.weight) == (75, 25)
    assert (status.candidate.step, status.candidate.step_start_time) == (1, ago(30))
    assert (status.stable.loaded_on, status.candidate.loaded_on) == (1, 1)
    assert [check.metric for check in status.candidate.analysis] == ["ErrorRate"]


def test_a_candidate_without_weight_has_no_checks() -> None:
    status = build_adapter_status(record("one", candidate("two")), context(target("two"), BOTH), [], 0)
    assert status.candidate is not None
    assert (status.candidate.analysis, status.candidate.step_start_time) == ((), None)


def test_history_and_rejections_are_the_newest_of_this_alias() -> None:
    versions = [past(f"v{n}", n, promoted=ago(100 - n)) for n in range(1, MAX_HISTORY + 3)]
    versions += [
        past(f"r{n}", 50 + n, rejected=ago(100 - n), reason="ErrorRateTooHigh")
        for n in range(MAX_REJECTED + 2)
    ]
    other = VersionRecord("tickets", version("x", 99), "Pass", promoted=ago(0), rejected=ago(0))
    status = build_adapter_status(record(), context(), [*versions, other], 0)
    assert [version.version for version in status.history] == [7, 6, 5, 4, 3]
    assert [rejected.digest for rejected in status.rejected] == [digest_of(f"r{n}") for n in (6, 5, 4, 3, 2)]


def test_a_long_message_is_cut() -> None:
    blocked = TargetVersion(reason="SourceUnreachable", message="x" * 1000)
    assert build_adapter_status(record(), context(blocked), [], 0).message == "x" * MAX_MESSAGE
