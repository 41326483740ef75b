"""pytest fixtures: a control plane per session, and the cluster with a node."""

from collections.abc import Iterator

import pytest

from tunesmith_cluster.client import ClusterClient
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.engines import open_test_cluster
from tunesmith_cluster.fake import ControlPlane
from tunesmith_cluster.kind import KindCluster
from tunesmith_cluster.processes import find_left_over

# Seconds for a test of real processes, the start of its cluster included; a test may be marked with more.
TIMEOUTS = {"control_plane": 600, "node_cluster": 1200}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that use a cluster the time that it needs."""
    for item in items:
        seconds = [TIMEOUTS[name] for name in getattr(item, "fixturenames", ()) if name in TIMEOUTS]
        if seconds and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max(seconds)))


class NodeCluster(ClusterClient):
    """A cluster that runs real pods. `engine` loads images and makes folders for volumes."""

    def __init__(self, engine: Cluster | KindCluster) -> None:
        super().__init__(engine.kubeconfig)
        self.engine = engine

    def add_claim(self, namespace: str, claim: str) -> None:
        """A claim on an empty folder of the node that honours fsGroup."""
        folder = self.engine.volume_folder(f"{namespace}-{claim}")
        self.add_volume(namespace, claim, folder, self.engine.node_name)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane with one fake node `gpu-0` of eight GPUs; ends with the session.

    The session fails if one of its processes outlives it.
    """
    state = tmp_path_factory.mktemp("cluster") / "state"
    cluster = Cluster(Shape.CONTROL_PLANE, state, bound=True)
    cluster.up()
    try:
        client = ControlPlane(cluster.kubeconfig)
        client.add_node("gpu-0")
        yield client
    finally:
        cluster.down()
    left_over = find_left_over(str(state))
    if left_over:
        pytest.fail("these processes outlived their cluster:\n" + "\n".join(left_over))


@pytest.fixture(scope="module")
def node_cluster() -> Iterator[NodeCluster]:
    """The cluster of TUNESMITH_KUBECONFIG, one that runs already, or a new one that ends with the module."""
    engine = open_test_cluster()
    ran_before = bool(engine.status().running)
    engine.up()
    try:
        yield NodeCluster(engine)
    finally:
        if not ran_before:
            engine.down()
