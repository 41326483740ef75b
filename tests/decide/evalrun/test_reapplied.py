"""An EvalRun that is deleted and applied again takes its finished results over, with their time."""

from copy import deepcopy
from typing import Any

import pytest
from simulation.simulated_cluster import (
    DIGEST,
    ENVIRONMENT,
    UID,
    SimulatedCluster,
    eval_run,
    evaluation_report,
    fine_tune_job,
)

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.conditions import timestamp
from tunesmith.decide.evalrun.planning import assemble_evaluation, plan_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.decide.plan import Delete, Plan, owned_by
from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun, newest_by_policy, read_evaluations
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.verdict_records import VERDICTS_OWNER, VerdictRecord, build_verdicts, read_verdicts
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV
from tunesmith_contract.report import ComparedSide, Interval, RunReport
from tunesmith_contract.shared_rules.verdict import Verdict

NEW_UID = "9a9a9a9a-1111-2222-3333-444455556666"
ANOTHER = f"sha256:{'c' * 64}"


def tuned(digest: str = DIGEST) -> FineTuneJob:
    """The candidate's job, with this artifact."""
    body = fine_tune_job()
    artifact = {"uri": f"pvc://artifacts/team/sha256/{digest[7:]}", "digest": digest, "sizeBytes": 7}
    body["status"] = {"phase": "Succeeded", "artifact": artifact, "resolved": {"baseModelRevision": "r1"}}
    return FineTuneJob.parse(body)


def passing() -> RunReport:
    """The report of an evaluation that passes."""
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    return report.model_copy(
        update={"evaluation": report.evaluation.model_copy(update={"compared": compared})}
    )


class World(SimulatedCluster):
    """A cluster with an EvalRun, and the operator's reconcile."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(eval_run(**spec))
        self.candidate = tuned()

    def plan(self) -> Plan:
        run = EvalRun.parse(self.resource)
        config_maps, jobs, pods = (self.children(kind) for kind in ("ConfigMap", "Job", "Pod"))
        artifact = self.candidate.status.artifact
        assert artifact is not None
        sources = SideSources({"expenses": self.candidate}, {}, {artifact.digest: self.candidate})
        finished = self.finished_work(run)
        seen = assemble_evaluation(
            run, config_maps, jobs, pods, sources, verdicts=self.verdicts, finished=finished
        )
        return plan_evaluation(run, seen, self.now, ENVIRONMENT)

    @property
    def verdicts(self) -> tuple[Body, ...]:
        labels = ((body, body["metadata"].get("labels", {})) for body in self.objects.values())
        return tuple(body for body, found in labels if found.get(OWNER_UID_LABEL) == VERDICTS_OWNER)

    def apply_again(self, **spec: Any) -> None:
        """Delete the run with all that belongs to it, and create one of the same name."""
        old = self.resource["metadata"]["uid"]
        gone = [key for key, body in self.objects.items() if owned_by(body, old) or key[0] == "Pod"]
        for key in gone:
            del self.objects[key]
        self.pass_time(3600)
        self.resource = eval_run(**spec)
        self.resource["metadata"] |= {"uid": NEW_UID, "creationTimestamp": timestamp(self.now)}
        self.events.clear()
        self.reconcile()

    def told(self) -> FinishedWork | None:
        """What the pod of the live Job is to compare."""
        containers = self.job()["spec"]["template"]["spec"]["containers"]
        values = {item["name"]: item.get("value") for item in containers[0]["env"]}
        text = values.get(FINISHED_ENV)
        return FinishedWork.model_validate_json(text) if text else None

    def observed(self) -> ObservedEvalRun:
        return ObservedEvalRun(self.resource, tuple(self.children("ConfigMap")))


def passed(**spec: Any) -> World:
    cluster = World(**spec)
    cluster.reconcile()
    cluster.end(0, passing())
    cluster.reconcile()
    assert cluster.status["verdict"] == "Pass"
    return cluster


def found_unchanged() -> RunReport:
    return passing().model_copy(update={"reused": UID})


def test_its_results_are_taken_over_with_their_time() -> None:
    cluster = passed()
    first = deepcopy(cluster.status)
    cluster.apply_again()
    told = cluster.told()
    assert told is not None
    assert told.evaluation == passing().evaluation
    cluster.end(0, found_unchanged())
    status = cluster.status
    assert (status["phase"], status["verdict"]) == ("Succeeded", "Pass")
    assert status["completionTime"] == first["completionTime"]
    assert status["results"] == first["results"]
    assert status["runs"] == first["runs"] == 1
    adopted = cluster.condition("Adopted")
    assert adopted["status"] == "True"
    assert UID in adopted["message"]
    assert cluster.events == ["Evaluating", "FinishedBefore", "Passed"]
    assert not cluster.reconcile().actions


def test_its_verdict_is_one_run_and_opens_the_gate_again() -> None:
    cluster = passed()
    cluster.apply_again()
    cluster.end(0, found_unchanged())
    (record,) = read_verdicts(cluster.verdicts, DIGEST)
    assert (record.uid, record.run, record.verdict) == (NEW_UID, 1, "Pass")
    (evaluation,) = read_evaluations([cluster.observed()], cluster.verdicts)
    assert evaluation.stands
    assert evaluation.confirmed


def test_a_later_fail_is_not_overtaken_by_a_pass_that_was_taken_over() -> None:
    cluster = passed()
    cluster.pass_time(60)
    failed = VerdictRecord(
        uid="other", name="other", policy_digest=DIGEST, verdict=Verdict.FAIL, ended_at=cluster.now, run=2
    )
    kept = build_verdicts("team", DIGEST, failed)
    cluster.objects["ConfigMap", kept["metadata"]["name"]]["data"] |= kept["data"]
    cluster.apply_again()
    cluster.end(0, found_unchanged())
    newest = newest_by_policy(read_evaluations([cluster.observed()], cluster.verdicts))
    assert newest[DIGEST].verdict is Verdict.FAIL


def test_a_run_whose_pod_finds_a_change_counts_as_another() -> None:
    cluster = passed()
    cluster.apply_again()
    cluster.end(0, passing())
    assert cluster.status["runs"] == 2
    assert "Adopted" not in {item["type"] for item in cluster.status["conditions"]}


CHANGES: dict[str, dict[str, Any]] = {
    "other confidence": {"confidence": "0.9"},
    "another prompt": {
        "candidate": {"fineTuneJobRef": {"name": "expenses"}, "systemPrompt": "Answer as the tests want."}
    },
    "it must not": {"reuse": "Never"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_spec_is_evaluated(change: dict[str, Any]) -> None:
    cluster = passed()
    cluster.apply_again(**change)
    assert cluster.told() is None


def test_another_artifact_is_evaluated() -> None:
    cluster = passed()
    cluster.candidate = tuned(ANOTHER)
    cluster.apply_again()
    assert cluster.told() is None


def test_an_endpoint_is_asked_again() -> None:
    endpoint = {"baseline": {"endpoint": {"url": "https://models.example/v1", "model": "large"}}}
    cluster = passed(**endpoint)
    cluster.apply_again(**endpoint)
    assert cluster.told() is None


def test_refused_inputs_are_shown_as_a_refused_job_is() -> None:
    cluster = World()
    cluster.refuses["ConfigMap"] = words = (
        "exceeded quota: team, requested: configmaps=1, limited: configmaps=3"
    )
    cluster.reconcile()
    before = cluster.status
    assert before["phase"] == "Running"
    assert cluster.condition("JobCreated")["message"] == words
    assert not cluster.children("Job")
    cluster.pass_time(30)
    cluster.reconcile()
    assert cluster.status == before
    cluster.refuses.clear()
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "better-0f3c9d-evaluate-1"


def test_a_status_that_was_restored_is_kept_and_stops_what_had_begun() -> None:
    cluster = passed()
    status = deepcopy(cluster.status)
    cluster.apply_again()
    cluster.resource["status"] = status
    plan = cluster.reconcile()
    assert [action.name for action in plan.actions if isinstance(action, Delete)] == [
        "better-9a9a9a-evaluate-1"
    ]
    assert plan.status is None
    assert not cluster.live_jobs()
