"""Bodies in memory: of the managed fields only the writers of the annotation for actions are kept."""

from typing import Any

from tunesmith.api.actions import ACTION_ANNOTATION
from tunesmith.controller_runtime.bodies import Bodies, key_of


def entry(manager: str, annotation: str | None = None) -> dict[str, Any]:
    annotations: dict[str, Any] = {f"f:{annotation}": {}} if annotation else {}
    fields = {"f:metadata": {"f:annotations": {".": {}, **annotations}}, "f:spec": {"f:adapters": {}}}
    return {"manager": manager, "operation": "Update", "time": "2030-01-01T00:00:00Z", "fieldsV1": fields}


def test_only_the_writers_of_the_annotation_are_kept() -> None:
    fields = [
        entry("helm"),
        {"manager": "tunesmith", "subresource": "status"},
        entry("argocd", ACTION_ANNOTATION),
    ]
    metadata = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "managedFields": fields}
    body = {"kind": "AdapterDeployment", "metadata": metadata}
    bodies = Bodies()
    bodies.put(body)
    stored = bodies.get(key_of(body))
    assert stored is not None
    kept: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{ACTION_ANNOTATION}": {}}}}
    assert stored["metadata"]["managedFields"] == [
        {"manager": "argocd", "time": "2030-01-01T00:00:00Z", "fieldsV1": kept}
    ]
    metadata = metadata | {"resourceVersion": "2", "managedFields": fields[:2]}
    bodies.put({"kind": "AdapterDeployment", "metadata": metadata})
    stored = bodies.get(key_of(body))
    assert stored is not None
    assert "managedFields" not in stored["metadata"]
