"""What GitOps tools need: a file applied again changes nothing, and a diff is empty, whoever fills in defaults."""

import json
from typing import Any

import pytest
from control_plane.restartable_operator import RestartableOperator
from custom_resources.documented_manifests import DOCUMENTED_RESOURCES
from custom_resources.manifest_cases import EXAMPLES, GOOD, load_good, read_documents

from tunesmith.api import GROUP, KINDS
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

CLIENT, SERVER = (), ("--server-side",)
ways = pytest.mark.parametrize("way", [CLIENT, SERVER], ids=["client-side", "server-side"])


def shown_to_people() -> list[dict[str, Any]]:
    """Every manifest of our kinds that examples, pages and tests hold, each under a name of its own."""
    bodies = [
        *(shown.body for shown in DOCUMENTED_RESOURCES),
        *(body for path in EXAMPLES for body in read_documents(path.read_text())),
        *map(load_good, GOOD),
    ]
    return [
        body | {"metadata": {"name": f"m{number}"}}
        for number, body in enumerate(bodies)
        if body["apiVersion"].startswith(f"{GROUP}/")
    ]


def as_file(bodies: list[dict[str, Any]]) -> str:
    """One file for kubectl; JSON, so that "2e-4" stays a string."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})


def versions(server: ControlPlane, namespace: str) -> dict[str, tuple[str, int]]:
    """Resource version and generation of everything of our kinds."""
    found = {}
    for kind in KINDS:
        path = f"/apis/{GROUP}/v1alpha1/namespaces/{namespace}/{kind.plural}"
        for item in server.api.get(path)["items"]:
            metadata = item["metadata"]
            found[f"{kind.plural}/{metadata['name']}"] = (metadata["resourceVersion"], metadata["generation"])
    return found


@ways
def test_a_file_applied_again_changes_nothing(server: ControlPlane, way: tuple[str, ...]) -> None:
    namespace, bodies = server.namespace("gitops"), shown_to_people()
    command = ("apply", *way, f"--namespace={namespace}", "-f", "-")
    server.kubectl(*command, stdin=as_file(bodies))
    if way == SERVER:
        # The API server stores the status of the schema's default with the first write after the creation.
        server.kubectl(*command, stdin=as_file(bodies))
    before = versions(server, namespace)
    assert len(before) == len(bodies)
    said = server.kubectl(*command, stdin=as_file(bodies)).splitlines()
    if way == CLIENT:
        assert [line for line in said if not line.endswith(" unchanged")] == []
    assert versions(server, namespace) == before
    # kubectl ends with 1 where there is a difference, which the client raises.
    assert server.kubectl("diff", *way, f"--namespace={namespace}", "-f", "-", stdin=as_file(bodies)) == ""


@ways
def test_what_the_operator_writes_is_no_difference(
    server: ControlPlane, operator: RestartableOperator, way: tuple[str, ...]
) -> None:
    """Of each kind, once the operator has acted: Jobs, pods, Services and a status are there."""
    del operator
    namespace, names = server.namespace("gitops"), ("finetunejob-minimal", "evalrun-job", "adapterdeployment")
    bodies = [load_good(name) for name in names]
    flags = (*way, f"--namespace={namespace}", "-f", "-")
    server.kubectl("apply", *flags, stdin=as_file(bodies))

    def processed() -> bool:
        listed = [server.get(body["kind"], body["metadata"]["name"], namespace) for body in bodies]
        return all(
            condition.get("observedGeneration") == 1
            for item in listed
            for condition in item["status"]["conditions"]
        )

    eventually(processed, what="the operator to write every status")
    assert server.kubectl("diff", *flags, stdin=as_file(bodies)) == ""
    before = versions(server, namespace)
    server.kubectl("apply", *flags, stdin=as_file(bodies))
    after = versions(server, namespace)
    assert {name: generation for name, (_, generation) in after.items()} == {
        name: generation for name, (_, generation) in before.items()
    }
