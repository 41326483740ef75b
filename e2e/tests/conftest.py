"""Fixtures: one cluster with real pods per run, with Tunesmith installed by its chart."""

from collections.abc import Iterator

import pytest
from invoices import MODEL, NAMESPACE, Installation, build_claim, build_data, make_tiny_model
from jobs import INTERRUPTIBLE, build_job, build_training, judged_adapter, wait_for_job
from mixed import build_mixed_job, build_mixed_rows

from tunesmith_cluster.client import ClusterClient
from tunesmith_cluster.cluster import Shape
from tunesmith_cluster.context import kubeconfig_from_environment
from tunesmith_cluster.engines import open_cluster, open_test_cluster
from tunesmith_demo.installation import fill_claim, install_chart
from tunesmith_demo.playground import Playground
from tunesmith_images.build import build_images
from tunesmith_images.catalog import SCORER

LOST_POD_SECONDS = 20
# For one test; the first one waits for the cluster and its images.
SECONDS = 1200
CLAIMS = {"models": "ReadWriteMany", "artifacts": "ReadWriteOnce", "shared": "ReadWriteMany"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real pods their time."""
    for item in items:
        if "playground" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """The cluster of TUNESMITH_KUBECONFIG, which stays, or one that ends with the run."""
    given = kubeconfig_from_environment() is not None
    state = tmp_path_factory.mktemp("cluster") / "state"
    made = Playground(open_test_cluster() if given else open_cluster(Shape.NODE, state))
    try:
        made.up()
        yield made
    finally:
        if not given:
            made.down()


@pytest.fixture(scope="session")
def installation(playground: Playground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The images, the chart, a namespace that enforces ``restricted``, a model on a claim."""
    images = playground.build()
    scorer = dict(build_images((SCORER,)).refs)[SCORER.name]
    model = tmp_path_factory.mktemp("model")
    make_tiny_model(model)
    client = ClusterClient(playground.cluster.kubeconfig)
    playground.load([*images.values(), scorer])
    install_chart(client, images, {"log": {"level": "DEBUG"}, "lostPodSeconds": LOST_POD_SECONDS})
    client.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
    )
    try:
        for claim, access_mode in CLAIMS.items():
            playground.provide_volumes(client, NAMESPACE, (claim,), access_mode)
            client.apply(build_claim(claim, access_mode))
        client.apply(build_data())
        fill_claim(client, NAMESPACE, "models", images["trainer"], model, MODEL)
        processes = getattr(playground.cluster, "processes", None)
        yield Installation(client, images, processes, playground.name_by_digest(scorer))
    finally:
        if kubeconfig_from_environment() is not None:
            client.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=300)


@pytest.fixture(scope="session")
def undisturbed(installation: Installation) -> None:
    """The jobs that no test disturbs. Their pods load their libraries while tests look at something else."""
    jobs = (
        build_job("first", "first"),
        build_mixed_job("second"),
        build_training("left-alone", **INTERRUPTIBLE),
    )
    installation.client.apply([build_mixed_rows(), *jobs])


@pytest.fixture(scope="session")
def first(installation: Installation, undisturbed: None) -> str:
    """Digest of the adapter of job ``first``, which gives the first answer."""
    assert wait_for_job(installation, "first")["status"]["dataset"]["rows"] == 240
    return judged_adapter(installation, "first")


@pytest.fixture(scope="session")
def second(installation: Installation, undisturbed: None) -> str:
    """Digest of the adapter of job ``second``, which gives the second answer."""
    return judged_adapter(installation, "second")
