"""A cluster with real pods, with Tunesmith installed by its chart; one for the whole run."""

from collections.abc import Iterator

import pytest
from invoices import MODEL, NAMESPACE, Installation, build_claim, build_data, make_tiny_model

from tunesmith_demo.installation import fill_claim, install_chart
from tunesmith_demo.playground import Playground


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The cluster, the images, the chart, a namespace that enforces ``restricted``, a model on a claim."""
    playground = Playground(tmp_path_factory.mktemp("cluster") / "state")
    images = playground.build()
    model = tmp_path_factory.mktemp("model")
    make_tiny_model(model)
    try:
        client = playground.up()
        playground.load(list(images.values()))
        install_chart(client, images, {"log": {"level": "DEBUG"}})
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
        playground.provide_volumes(client, NAMESPACE, ("models", "artifacts"))
        for claim in ("models", "artifacts"):
            client.apply(build_claim(claim))
        client.apply(build_data())
        fill_claim(client, NAMESPACE, "models", images["trainer"], model, MODEL)
        yield Installation(client, images)
    finally:
        playground.down()
