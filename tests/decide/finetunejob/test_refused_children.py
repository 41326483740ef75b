"""Children that the API server refuses: status tells the rest, and what is refused in a condition of its own."""

from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, EVALUATION, fine_tune_job
from simulation.training_world import World, training, world

from tunesmith_contract.exit_codes import ExitCode

QUOTA = "jobs.batch is forbidden: exceeded quota: team, requested: count/jobs.batch=1, limited: count/jobs.batch=1"
POLICY = "evalruns.tunesmith.dev is forbidden: ValidatingAdmissionPolicy 'no-eval' denied request"


def types(cluster: World) -> set[str]:
    return {condition["type"] for condition in cluster.status["conditions"]}


def test_a_refused_evaluation_withholds_no_artifact() -> None:
    cluster = training(evaluation=EVALUATION)
    cluster.refuses["EvalRun"] = POLICY
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]["digest"] == DIGEST
    refused = cluster.condition("EvaluationCreated")
    assert (refused["status"], refused["reason"], refused["message"]) == ("False", "Refused", POLICY)
    assert cluster.condition("Ready")["status"] == "True"
    assert "EvaluationCreated" not in cluster.events
    before = cluster.status
    cluster.pass_time(30)
    cluster.reconcile()
    assert cluster.status == before


def test_an_evaluation_that_is_allowed_later_is_created_then() -> None:
    cluster = training(evaluation=EVALUATION)
    cluster.refuses["EvalRun"] = POLICY
    cluster.succeed("train")
    cluster.refuses.clear()
    cluster.reconcile()
    assert ("EvalRun", "expenses") in cluster.objects
    assert "EvaluationCreated" not in types(cluster)
    assert cluster.events[-1] == "EvaluationCreated"


def test_a_refused_training_job_withholds_neither_data_nor_estimate() -> None:
    cluster = world()
    cluster.refuses["Job"] = QUOTA
    cluster.succeed("prepare")
    assert cluster.status["phase"] == "Training"
    assert cluster.status["dataset"]["trainRows"] == 540
    assert cluster.status["resolved"]["learningRate"]
    assert cluster.condition("DataReady")["status"] == "True"
    for kind in ("JobCreated", "Ready"):
        refused = cluster.condition(kind)
        assert (refused["status"], refused["reason"], refused["message"]) == ("False", "Refused", QUOTA)
    assert cluster.condition("Reconciling")["status"] == "True"
    assert cluster.events == ["Preparing", "Prepared"]
    before = cluster.status
    cluster.pass_time(30)
    cluster.reconcile()
    assert cluster.status == before


def test_refused_inputs_are_shown_as_a_refused_job_is() -> None:
    cluster = World(fine_tune_job())
    cluster.refuses["ConfigMap"] = words = (
        "exceeded quota: team, requested: configmaps=1, limited: configmaps=3"
    )
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    for kind in ("JobCreated", "Ready"):
        refused = cluster.condition(kind)
        assert (refused["status"], refused["reason"], refused["message"]) == ("False", "Refused", words)
    assert not cluster.children("Job"), "a pod would lack its configuration"
    assert not cluster.events
    before = cluster.status
    cluster.pass_time(30)
    cluster.reconcile()
    assert cluster.status == before, "no status is written with each try"
    cluster.refuses.clear()
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-prepare-1"
    assert "JobCreated" not in types(cluster)
    assert cluster.status["disruptions"] == 0


def test_a_job_that_was_refused_is_no_disruption_and_keeps_its_number() -> None:
    cluster = world()
    cluster.refuses["Job"] = QUOTA
    cluster.succeed("prepare")
    for _ in range(3):
        cluster.pass_time(30)
        cluster.reconcile()
    cluster.refuses.clear()
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-train-1"
    assert cluster.status["disruptions"] == 0
    assert "JobCreated" not in types(cluster)
    assert cluster.condition("Ready")["reason"] == "Training"


@pytest.mark.parametrize("spec", [{}, {"compute": {"nodes": 2, "gpusPerNode": 1}}])
def test_no_part_of_an_attempt_is_left_without_the_rest(spec: dict[str, Any]) -> None:
    cluster = world(**spec, output={"uri": "s3://bucket/team"}, baseModel={"uri": "hf://org/model"})
    cluster.refuses["Service"] = cluster.refuses["ConfigMap"] = "exceeded quota: team"
    cluster.succeed("prepare")
    assert cluster.status["dataset"]
    assert not cluster.live_jobs()


def test_a_refused_retry_tells_the_end_of_the_attempt_before() -> None:
    cluster = training()
    cluster.end(ExitCode.INFRASTRUCTURE)
    cluster.refuses["Job"] = QUOTA
    cluster.pass_time(60)
    cluster.reconcile()
    assert cluster.condition("JobCreated")["message"] == QUOTA
    assert ("ConfigMap", "expenses-0f3c9d-result-train-1") in cluster.objects
    cluster.refuses.clear()
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-train-2"
