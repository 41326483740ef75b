"""An EvalRun on a real API server with real controllers; the operator is a process that may be killed."""

from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition, lasting
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import DIGEST, eval_run, failure, fine_tune_job, success

from tunesmith.manifests.verdict_records import read_verdicts, verdicts_name
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import ComparedSide

KIND = "EvalRun"
GARBAGE_SECONDS = 90


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> Runs:
    """A namespace with claims."""
    return Runs(server, tmp_path)


def run(**spec: Any) -> dict[str, Any]:
    """An EvalRun of an artifact that no job of this cluster made."""
    candidate = {"candidate": {"uri": "pvc://artifacts/mine", "digest": DIGEST}}
    return eval_run(compute={"gpus": 0}, baseModel={"uri": "pvc://models/tiny"}, **candidate | spec)


def begin(runs: Runs, name: str, **spec: Any) -> dict[str, Any]:
    """A run whose pod runs."""
    made = runs.create(run(**spec), name)
    runs.pod(made, "evaluate", 1)
    return made


def test_it_waits_for_its_job_and_judges_its_artifact(runs: Runs) -> None:
    made = runs.create(eval_run(compute={"gpus": 0}), "judge")
    told = runs.wait_for_reason(KIND, "judge", "WaitingForCandidate")
    assert 'FineTuneJob "expenses" does not exist' in told["message"]
    job = runs.create(fine_tune_job(compute={"gpusPerNode": 0}), "expenses")
    for stage in ("prepare", "train"):
        # The rows' ConfigMap is not needed: fake pods mount nothing.
        runs.finish(job, stage, 1, 0, success(stage))
    runs.finish(made, "evaluate", 1, 0, success("evaluate"))
    status = runs.wait(KIND, "judge", "Succeeded")
    assert (status["verdict"], status["candidate"]["digest"]) == ("Pass", DIGEST)
    assert condition(status, "Ready")["reason"] == "Passed"
    assert "Pass" in runs.server.kubectl("get", "er", "judge", f"--namespace={runs.namespace}")


@pytest.mark.parametrize("code", [ExitCode.USER_ERROR, ExitCode.DATA_ERROR, ExitCode.OUT_OF_MEMORY, 137])
def test_a_failure_is_no_verdict(runs: Runs, code: int) -> None:
    made = begin(runs, "fails", backoffLimit=0)
    runs.finish(made, "evaluate", 1, code)
    status = runs.wait(KIND, "fails", "Failed")
    assert "verdict" not in status
    assert status["failure"]["exitCode"] == code
    assert condition(status, "Stalled")["status"] == "True"


def test_killed_and_wiped_it_comes_back(runs: Runs, operator: RestartableOperator) -> None:
    names = {name: begin(runs, name) for name in ("runs", "retries", "passed", "failed")}
    runs.finish(names["retries"], "evaluate", 1, ExitCode.INFRASTRUCTURE)
    runs.pod(names["retries"], "evaluate", 2)
    runs.finish(names["passed"], "evaluate", 1, 0, success("evaluate"))
    runs.wait(KIND, "passed", "Succeeded")
    runs.finish(names["failed"], "evaluate", 1, 10, failure("evaluate", "UserError", "no such suite"))
    runs.wait(KIND, "failed", "Failed")
    eventually(lambda: runs.status(KIND, "retries").get("attempts") == 2, what="the second attempt in status")
    runs.wait(KIND, "runs", "Running")
    before = {name: lasting(runs.status(KIND, name)) for name in names}
    operator.kill()
    for name in names:
        runs.wipe_status(KIND, name)
    operator.start()
    for name in names:
        runs.wait_restored(KIND, name, before[name])
    operator.kill()
    runs.finish(names["runs"], "evaluate", 1, 0, success("evaluate"))
    operator.start()
    assert runs.wait(KIND, "runs", "Succeeded")["verdict"] == "Pass"


def test_it_cannot_be_changed(runs: Runs) -> None:
    begin(runs, "fixed")
    with pytest.raises(ApiError, match="An EvalRun can't be changed"):
        runs.patch(KIND, "fixed", {"spec": {"confidence": "0.5"}})


def test_deleted_nothing_of_it_stays(runs: Runs) -> None:
    names = {name: begin(runs, name) for name in ("runs", "ends")}
    runs.finish(names["ends"], "evaluate", 1, 0, success("evaluate"))
    runs.wait(KIND, "ends", "Succeeded")
    for name in names:
        runs.delete(KIND, name)
    for name, body in names.items():
        runs.wait_for_no_children(name, body, GARBAGE_SECONDS)


def test_a_verdict_outlives_its_run_and_counts_in_the_next_one(runs: Runs) -> None:
    """Deleted and applied again under its name, as tools for GitOps do."""
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    report = success("evaluate")
    assert report.evaluation is not None
    evaluation = report.evaluation.model_copy(update={"compared": compared})
    report = report.model_copy(update={"evaluation": evaluation})
    for number in (1, 2):
        made = begin(runs, "again")
        runs.finish(made, "evaluate", 1, 0, report)
        assert runs.wait(KIND, "again", "Succeeded")["runs"] == number
        runs.delete(KIND, "again")
        runs.wait_for_no_children("again", made, GARBAGE_SECONDS)
    path = f"/api/v1/namespaces/{runs.namespace}/configmaps/{verdicts_name(DIGEST)}"
    found = read_verdicts([runs.server.api.get(path)], DIGEST)
    assert [(record.name, record.run) for record in found] == [("again", 1), ("again", 2)]
