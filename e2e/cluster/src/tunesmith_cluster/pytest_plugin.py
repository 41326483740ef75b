"""Fixtures: a control plane of its own for each session, and the cluster with a node."""

from collections.abc import Iterator

import pytest

from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.fake import ControlPlane
from tunesmith_cluster.processes import find_left_over


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
