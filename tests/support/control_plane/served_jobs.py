"""FineTuneJobs on a real API server, and what became of them."""

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from custom_resources.manifest_cases import load_good

from tunesmith.api import GROUP, KINDS, VERSION
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

CRDS = Path(__file__).parents[3] / "crds"
#: The kinds as they were after their installation.
_LEFT: WeakKeyDictionary[ControlPlane, dict[str, tuple[str, int]]] = WeakKeyDictionary()


def install_crds(control_plane: ControlPlane) -> None:
    """Apply our three kinds, unless they are as this left them, and wait until they are served.

    The API server checks all their rules anew, which takes it two seconds, also where nothing changes.
    """
    left = _LEFT.get(control_plane)
    if left is not None and left == _generations(control_plane):
        return
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    for kind in KINDS:
        wait_established(control_plane, f"{kind.plural}.{GROUP}")
    _LEFT[control_plane] = _generations(control_plane)


def _generations(control_plane: ControlPlane) -> dict[str, tuple[str, int]]:
    """Uid and generation of each CRD that is there; another spec has another generation."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    found = {item["metadata"]["name"]: item["metadata"] for item in control_plane.api.get(path)["items"]}
    names = [f"{kind.plural}.{GROUP}" for kind in KINDS]
    return {name: (found[name]["uid"], found[name]["generation"]) for name in names if name in found}


def wait_established(control_plane: ControlPlane, crd: str) -> None:
    """Wait until a kind is served; `kubectl wait` fails on one that has no conditions yet."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}"

    def established() -> bool:
        conditions = control_plane.api.get(path).get("status", {}).get("conditions") or ()
        return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)

    eventually(established, what=f"{crd} to be served")


def collection(namespace: str, plural: str = "finetunejobs") -> str:
    """Path of the resources of a namespace."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"


def remove_resources(server: ControlPlane, namespace: str) -> None:
    """Delete all resources of our kinds, without waiting; the garbage collector deletes what belongs to them."""
    for kind in KINDS:
        try:
            server.api.delete(collection(namespace, kind.plural))
        except ApiError as error:
            # The kinds are not installed for each test.
            if error.status != 404:
                raise


def create_job(server: ControlPlane, namespace: str, name: str = "job") -> dict[str, Any]:
    """Create a FineTuneJob."""
    body = load_good("finetunejob-minimal")
    return server.api.create(collection(namespace), body | {"metadata": {"name": name}})


def children(
    server: ControlPlane, job: dict[str, Any], path: str = "apis/batch/v1", plural: str = "jobs"
) -> list[dict[str, Any]]:
    """The labeled objects of a resource."""
    metadata = job["metadata"]
    selector = f"labelSelector={OWNER_UID_LABEL}%3D{metadata['uid']}"
    found: list[dict[str, Any]]
    found = server.api.get(f"/{path}/namespaces/{metadata['namespace']}/{plural}?{selector}")["items"]
    return found


def condition(server: ControlPlane, job: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a resource; empty when it is not there."""
    metadata = job["metadata"]
    body = server.api.get(f"{collection(metadata['namespace'])}/{metadata['name']}")
    found = [item for item in body["status"]["conditions"] if item["type"] == kind]
    return found[0] if found else {}
