"""The objects that a resource owns."""

from typing import Any

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.plan import owned_by
from tunesmith.manifests.names import Metadata, children_selector


async def observe_children(
    client: Client, api_version: str, kind: str, owner: Metadata
) -> tuple[dict[str, Any], ...]:
    """The resource's children of this kind, in the order of their names.

    Found by the owner's label and confirmed by the owner reference. Pods of a Job belong to the Job, not to the
    resource: for them see ``observe_pods``.
    """
    found = await _labelled(client, api_version, kind, owner)
    return tuple(child for child in found if owned_by(child, owner.uid))


async def observe_pods(client: Client, owner: Metadata) -> tuple[dict[str, Any], ...]:
    """The pods of a resource's Jobs and Deployments, in the order of their names, found by the owner's label."""
    return tuple(await _labelled(client, "v1", "Pod", owner))


async def _labelled(client: Client, api_version: str, kind: str, owner: Metadata) -> list[dict[str, Any]]:
    found = client.index.find(api_version, kind, owner.uid)
    if found is None:
        found = tuple(await client.list(api_version, kind, owner.namespace, children_selector(owner.uid)))
    return sorted(found, key=lambda body: str(body["metadata"]["name"]))
