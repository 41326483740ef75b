"""A teacher's stage on a real API server with real controllers; the operator is killed in it."""

from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import GENERATE, fine_tune_job, success

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode

KIND = "FineTuneJob"


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> Runs:
    """A namespace with claims, and the teacher's key."""
    made = Runs(server, tmp_path)
    key = {"metadata": {"name": "teacher"}, "stringData": {"token": "sesame"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/secrets", key)
    return made


def test_rows_are_generated_then_prepared_whatever_happens(runs: Runs, operator: RestartableOperator) -> None:
    body = fine_tune_job(compute={"gpusPerNode": 0}, dataset={"generate": GENERATE})
    made = runs.create(body, "made")
    runs.wait(KIND, "made", "Generating")
    pod = runs.pod(made, "generate", 1)
    secrets = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
    assert secrets == {"teacher"}
    runs.finish(made, "generate", 1, ExitCode.PREEMPTED)
    runs.pod(made, "generate", 2)
    operator.kill()
    runs.finish(made, "generate", 2, 0, success("generate"))
    operator.start()
    status = runs.wait(KIND, "made", "Preparing")
    assert (status["generation"]["rows"], status["generation"]["amount"]) == (500, "0.055500")
    assert condition(status, "DataReady")["reason"] == "Preparing"
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    runs.wait(KIND, "made", "Training")
    runs.finish(made, "train", 1, 0, success("train"))
    status = runs.wait(KIND, "made", "Succeeded")
    assert (status["attempts"], status["disruptions"]) == (4, 1)
    assert status["generation"]["calls"] == 1040
    runs.delete(KIND, "made")
    eventually(lambda: not runs.children(made), 90, what="the end of its children")
