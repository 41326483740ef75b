"""pytest fixture: a control plane per session."""

from collections.abc import Iterator

import pytest

from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.fake import ControlPlane
from tunesmith_cluster.processes import find_left_over

# Seconds for a test of real processes, the start of its cluster included; a test may be marked with more.
TIMEOUT = 600


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that use a cluster the time that it needs."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))


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
