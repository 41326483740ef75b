"""Admission checks of the artifact that a source names, one by one."""

from dataclasses import replace
from typing import Any

import pytest
from simulation.alias_states import ALIAS, ago, version
from simulation.serving_world import World, build_adapter, digest_of

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.decide.serving.admission.evaluations import Evaluation
from tunesmith.decide.serving.admission.targets import (
    Sources,
    VersionRecord,
    resolve_target,
)
from tunesmith_contract.shared_rules.verdict import Verdict

POLICY, OTHER_POLICY = digest_of("policy"), digest_of("another policy")
FROM_JOB = {"fineTuneJobRef": {"name": "tune"}}


def adapter(**fields: Any) -> Adapter:
    """An adapter at ``pvc://artifacts/one`` that needs no EvalRun."""
    return Adapter.model_validate(build_adapter("one", name=ALIAS, **fields))


def gated(**requirement: str) -> Adapter:
    return adapter(requireEvalRun={"verdict": "Pass", **requirement})


def sources(
    *versions: VersionRecord, job: dict[str, Any] | None = None, runs: tuple[Evaluation, ...] = ()
) -> Sources:
    """What was observed, with the claim ``artifacts`` mounted."""
    jobs = {} if job is None else {"tune": FineTuneJobStatus.model_validate(job)}
    return Sources(World().resource.spec, jobs, runs, versions, "assistants")


def run(name: str, verdict: Verdict, policy: str = POLICY, word: str = "one") -> Evaluation:
    return Evaluation(name, digest_of(word), verdict, policy, ended=ago(60))


def made(kind: str = "LoRA", **more: Any) -> dict[str, Any]:
    artifact = {"uri": "pvc://artifacts/made", "digest": digest_of("made"), "kind": kind, **more}
    return {"phase": "Succeeded", "artifact": artifact}


def not_servable(message: str) -> dict[str, Any]:
    condition = {
        "type": "Servable",
        "status": "False",
        "reason": "NotServable",
        "message": message,
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    return made(servable=False) | {"conditions": [condition] if message else []}


@pytest.mark.parametrize(
    ("job", "reason", "message"),
    [
        (None, "WaitingForSource", "FineTuneJob tune does not exist in this namespace"),
        ({}, "WaitingForSource", "FineTuneJob tune has no artifact yet"),
        ({"phase": "Failed"}, "SourceFailed", "FineTuneJob tune failed"),
        (made("Model"), "Incompatible", "produced a Model"),
        (made("RewardAdapter"), "Incompatible", "produced a RewardAdapter"),
        (not_servable("adapter.rank is 600"), "Incompatible", "adapter.rank is 600"),
        (not_servable(""), "Incompatible", "can't be served as an adapter"),
    ],
)
def test_a_job_without_a_servable_artifact(job: dict[str, Any] | None, reason: str, message: str) -> None:
    target = resolve_target(adapter(source=FROM_JOB), sources(job=job))
    assert (target.admitted, target.reason) == (False, reason)
    assert message in target.message


def test_the_artifact_of_a_job() -> None:
    target = resolve_target(adapter(source=FROM_JOB), sources(job=made()))
    assert target.version == version("made", 1)
    assert target.admitted


@pytest.mark.parametrize(
    ("uri", "reachable", "message"),
    [
        ("pvc://artifacts/one", True, ""),
        ("pvc://other/one", False, "add {claim: other} to artifactVolumes"),
        ("s3://bucket/one", True, ""),
        ("gs://bucket/one", True, ""),
        ("oci://registry.example/a:b", True, ""),
        ("hf://org/repo/one", True, ""),
    ],
)
def test_locations_that_pods_can_read(uri: str, reachable: bool, message: str) -> None:
    target = resolve_target(adapter(source={"uri": uri, "digest": digest_of("one")}), sources())
    assert (target.reachable, target.admitted) == (reachable, reachable)
    assert message in target.message


PASSED = run("quality", Verdict.PASS)
FAILED = run("quality", Verdict.FAIL)


@pytest.mark.parametrize(
    ("needed", "runs", "admitted", "message"),
    [
        (gated(), (), False, "and no EvalRun has judged it"),
        (gated(), (FAILED,), False, "quality, the newest by its policy, says Fail"),
        (gated(), (PASSED,), True, ""),
        # The newest run of a policy counts, and a Fail by any policy.
        (gated(), (replace(FAILED, ended=ago(120)), run("second", Verdict.PASS)), True, ""),
        (gated(), (FAILED, run("second", Verdict.PASS)), False, "quality, the newest"),
        (gated(), (replace(FAILED, ended=ago(1)), run("second", Verdict.PASS)), False, "quality, the newest"),
        (
            gated(),
            (replace(FAILED, policy_digest=OTHER_POLICY), run("second", Verdict.PASS)),
            False,
            "quality, the newest by its policy, says Fail",
        ),
        (
            gated(policyDigest=POLICY),
            (replace(FAILED, policy_digest=OTHER_POLICY), run("second", Verdict.PASS)),
            True,
            "",
        ),
        (gated(), (replace(PASSED, is_bare=False),), False, "quality prompted the candidate"),
        (
            gated(),
            (replace(PASSED, baseline_alias="assistants/tickets", baseline_digest=digest_of("zero")),),
            False,
            "compared it with alias assistants/tickets, not with assistants/expenses",
        ),
        (gated(), (run("quality", Verdict.PASS, word="two"),), False, "and no EvalRun has judged it"),
        (gated(policyDigest=POLICY), (PASSED,), True, ""),
        (
            gated(policyDigest=POLICY),
            (replace(PASSED, policy_digest=OTHER_POLICY),),
            False,
            f"has {OTHER_POLICY}",
        ),
        (gated(policyDigest=POLICY), (replace(PASSED, policy_digest=""),), False, "quality has none"),
        (adapter(), (), True, "no EvalRun is required"),
    ],
)
def test_evaluation(needed: Adapter, runs: tuple[Evaluation, ...], admitted: bool, message: str) -> None:
    target = resolve_target(needed, sources(runs=runs))
    assert target.admitted is admitted
    assert message in target.message
    if admitted and runs:
        assert (target.evaluated, target.policy_digest) == ("Pass", POLICY)


def stored(word: str, number: int, **fields: Any) -> VersionRecord:
    return VersionRecord(ALIAS, version(word, number), **({"evaluated": "Unevaluated"} | fields))


@pytest.mark.parametrize(
    ("needed", "policy", "admitted"),
    [
        (gated(), POLICY, True),
        (gated(policyDigest=POLICY), POLICY, True),
        (gated(policyDigest=POLICY), "", False),
    ],
)
def test_a_version_that_passed_before_needs_no_eval_run(needed: Adapter, policy: str, admitted: bool) -> None:
    existing = stored("one", 4, evaluated="Pass", policy_digest=policy)
    target = resolve_target(needed, sources(existing))
    assert (target.admitted, target.version) == (admitted, version("one", 4))


def test_a_rejected_digest_is_never_admitted() -> None:
    existing = stored("one", 4, rejected=ago(60), message="40 of 40 requests failed")
    target = resolve_target(adapter(), sources(existing, runs=(PASSED,)))
    assert (target.admitted, target.rejected, target.reason) == (False, True, "DigestRejected")
    assert "40 of 40 requests failed" in target.message


def test_numbers_are_given_once_per_alias() -> None:
    other = VersionRecord("tickets", version("one", 7), "Pass")
    observed = sources(stored("two", 3), stored("three", 1), other)
    assert observed.version_number(ALIAS, digest_of("two")) == 3
    assert observed.version_number(ALIAS, digest_of("one")) == 4
    assert observed.version_number("tickets", digest_of("one")) == 7
    assert observed.version_number("new", digest_of("one")) == 1
