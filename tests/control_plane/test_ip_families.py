"""The operator on clusters without IPv4 and with both families: its API server and the addresses of Services."""

import ipaddress
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import children, collection, create_job, install_crds
from custom_resources.manifest_cases import load_good

from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.controlplane import IPFamilies
from tunesmith_cluster.fake import ControlPlane

pytestmark = [
    pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module", params=[IPFamilies.IPV6, IPFamilies.DUAL], ids=["ipv6", "dual-stack"])
def families(request: pytest.FixtureRequest) -> IPFamilies:
    """Families of a cluster."""
    found: IPFamilies = request.param
    return found


@pytest.fixture(scope="module")
def server(families: IPFamilies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with addresses of these families, and with our kinds."""
    cluster = Cluster(
        Shape.CONTROL_PLANE, tmp_path_factory.mktemp("families") / "state", bound=True, families=families
    )
    cluster.up()
    try:
        client = ControlPlane(cluster.kubeconfig)
        client.add_node("gpu-0")
        install_crds(client)
        yield client
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def operator(server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableOperator]:
    """An operator that connects to the API server by the address in its kubeconfig."""
    with RestartableOperator(server, tmp_path_factory.mktemp("operator"), "") as process:
        yield process


def versions_of(addresses: list[str]) -> list[int]:
    """4 or 6 for each address."""
    return [ipaddress.ip_address(address).version for address in addresses]


def test_clients_reach_an_adapter_deployment_by_all_families(
    server: ControlPlane, operator: RestartableOperator, families: IPFamilies
) -> None:
    del operator
    namespace, body = server.namespace("families"), load_good("adapterdeployment")
    server.api.create(collection(namespace, "adapterdeployments"), body)
    services = f"/api/v1/namespaces/{namespace}/services"

    def made() -> dict[str, Any] | None:
        found = server.api.get(services)["items"]
        return found[0] if found else None

    service = eventually(made, what="the Service")
    wanted = [6] if families is IPFamilies.IPV6 else [4, 6]
    assert versions_of(service["spec"]["clusterIPs"]) == wanted
    assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"


def test_a_job_is_prepared(server: ControlPlane, operator: RestartableOperator) -> None:
    del operator
    namespace = server.namespace("families")
    job = create_job(server, namespace)
    eventually(partial(children, server, job), what="the Job that prepares")


def test_a_restarted_operator_leads_again(operator: RestartableOperator) -> None:
    operator.stop()
    operator.start()
