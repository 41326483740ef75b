"""Several operators on a real control plane: one leads, another takes over, none acts without its lease."""

import signal
from pathlib import Path

import pytest
from control_plane.operator_process import operator_process
from control_plane.served_jobs import children, create_job, install_crds

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

LEASE_SECONDS = 15.0


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The API server with our three kinds established."""
    install_crds(control_plane)
    return control_plane


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_another_replica_takes_over(server: ControlPlane, tmp_path: Path, number: int) -> None:
    system, namespace = server.namespace("system"), server.namespace("kernel")
    scope = {"namespace": system, "watch_namespaces": namespace}
    with (
        operator_process(server.kubeconfig, tmp_path, "first", **scope) as first,
        operator_process(server.kubeconfig, tmp_path, "second", **scope) as second,
    ):
        first.wait_ready()
        second.wait_ready()
        eventually(lambda: first.is_leading() or second.is_leading(), what="a leader")
        leader, standby = (first, second) if first.is_leading() else (second, first)
        assert not standby.is_leading()
        assert standby.read("/readyz")[0] == standby.read("/livez")[0] == 200
        assert leader.stop(number) == (0 if number == signal.SIGTERM else -number)
        job = create_job(server, namespace)
        patience = 5.0 if number == signal.SIGTERM else LEASE_SECONDS + 10
        eventually(standby.is_leading, patience, what="the other replica's lead")
        eventually(lambda: children(server, job), what="the first Job")
        assert standby.stop() == 0


def test_other_namespaces_are_left_alone(server: ControlPlane, tmp_path: Path) -> None:
    system, mine, other = (server.namespace(prefix) for prefix in ("system", "mine", "other"))
    with operator_process(server.kubeconfig, tmp_path, namespace=system, watch_namespaces=mine) as process:
        process.wait_leading()
        ignored, served = create_job(server, other), create_job(server, mine)
        eventually(lambda: children(server, served), what="the first Job")
        assert not children(server, ignored)
        assert process.read("/livez")[0] == 200


def test_a_leader_that_loses_its_lease_ends_itself(server: ControlPlane, tmp_path: Path) -> None:
    system = server.namespace("system")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{system}/leases/tunesmith"
    with operator_process(server.kubeconfig, tmp_path, namespace=system, watch_namespaces=system) as process:
        process.wait_leading()
        server.api.merge(lease, {"spec": {"holderIdentity": "usurper"}})
        assert process.process.wait(LEASE_SECONDS) == 1
    assert "usurper leads now" in process.log.read_text()
    assert server.api.get(lease)["spec"]["holderIdentity"] == "usurper"
