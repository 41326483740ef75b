"""GPUs of resource claims: allocated by the real scheduler from the devices of a node, without a driver."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import fine_tune_job, success

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

KIND = "FineTuneJob"
API = "/apis/resource.k8s.io/v1"
DRIVER, CLASS, TEMPLATE = "gpu.example.com", "gpus-of-the-tests", "two-gpus"


@pytest.fixture(scope="module")
def devices(server: ControlPlane) -> Iterator[None]:
    """Two devices on the only node, and the class that names them."""
    selector = {"cel": {"expression": f"device.driver == '{DRIVER}'"}}
    server.api.create(
        f"{API}/deviceclasses", {"metadata": {"name": CLASS}, "spec": {"selectors": [selector]}}
    )
    pool = {"name": "gpu-0", "generation": 1, "resourceSliceCount": 1}
    spec = {
        "driver": DRIVER,
        "nodeName": "gpu-0",
        "pool": pool,
        "devices": [{"name": "first"}, {"name": "second"}],
    }
    server.api.create(f"{API}/resourceslices", {"metadata": {"name": CLASS}, "spec": spec})
    yield
    for kind in ("resourceslices", "deviceclasses"):
        server.api.delete(f"{API}/{kind}/{CLASS}")


def begin(runs: Runs, name: str) -> dict[str, Any]:
    """A job whose pod claims both devices, prepared."""
    claims = [{"name": "gpus", "resourceClaimTemplateName": TEMPLATE}]
    compute = {"gpusPerNode": 2, "template": {"resourceClaims": claims}}
    made = runs.create(fine_tune_job(compute=compute), name)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    return made


@pytest.mark.usefixtures("devices")
def test_a_job_trains_on_claimed_devices_and_the_next_one_waits_for_them(
    server: ControlPlane, operator: RestartableOperator, tmp_path: Path
) -> None:
    runs = Runs(server, tmp_path)
    request = {"name": "gpus", "exactly": {"deviceClassName": CLASS, "count": 2}}
    server.api.create(
        f"{API}/namespaces/{runs.namespace}/resourceclaimtemplates",
        {"metadata": {"name": TEMPLATE}, "spec": {"spec": {"devices": {"requests": [request]}}}},
    )
    first = begin(runs, "first")
    pod = runs.pod(first, "train", 1)
    (claim,) = server.api.get(f"{API}/namespaces/{runs.namespace}/resourceclaims")["items"]
    assert {each["device"] for each in claim["status"]["allocation"]["devices"]["results"]} == {
        "first",
        "second",
    }
    assert claim["status"]["reservedFor"][0]["uid"] == pod["metadata"]["uid"]

    second = begin(runs, "second")
    ready = runs.wait_for_reason(KIND, "second", "Unschedulable")
    assert "cannot allocate all claims" in ready["message"]

    runs.finish(first, "train", 1, 0, success("train"))
    runs.wait(KIND, "first", "Succeeded")
    runs.finish(second, "train", 1, 0, success("train"))
    status = runs.wait(KIND, "second", "Succeeded")
    assert condition(status, "Ready")["status"] == "True"
    eventually(
        lambda: not server.api.get(f"{API}/namespaces/{runs.namespace}/resourceclaims")["items"],
        what="the claims to be given back",
    )
