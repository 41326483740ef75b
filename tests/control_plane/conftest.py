"""What the tests of more than one kind start from."""

from collections.abc import Iterator

import pytest
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import install_crds, remove_resources

from tunesmith_cluster.fake import ControlPlane


@pytest.fixture(autouse=True)
def _resources_end_with_their_test(control_plane: ControlPlane) -> Iterator[None]:
    """Pods that nobody needs any more would keep the GPUs of the only node."""
    before = len(control_plane.namespaces)
    yield
    for namespace in control_plane.namespaces[before:]:
        remove_resources(control_plane, namespace)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The API server with our three kinds established."""
    install_crds(control_plane)
    return control_plane


@pytest.fixture(scope="module")
def operator(server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableOperator]:
    """An operator of all namespaces."""
    with RestartableOperator(server, tmp_path_factory.mktemp("operator"), "") as process:
        yield process
