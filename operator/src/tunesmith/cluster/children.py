"""The objects that a resource owns."""

from typing import Any

from tunesmith.decide.plan import owned_by
from tunesmith.manifests.names import Metadata, children_selector

from .client import Client


async def observe_children(
    client: Client, api_version: str, kind: str, owner: Metadata
) -> tuple[dict[str, Any], ...]:
    """The resource's children of this kind, in the order of their names.

    Found by the owner's label and confirmed by the owner reference. Pods of a Job belong to the Job, not to the
    resource: for them see ``observe_pods``.
    """
    listed = await client.list(api_version, kind, owner.namespace, children_selector(owner.uid))
    children = (child for child in listed if owned_by(child, owner.uid))
    return tuple(sorted(children, key=lambda child: child["metadata"]["name"]))


async def observe_pods(client: Client, owner: Metadata) -> tuple[dict[str, Any], ...]:
    """The pods of a resource's Jobs and StatefulSets, in the order of their names, found by the owner's label."""
    pods = await client.list("v1", "Pod", owner.namespace, children_selector(owner.uid))
    return tuple(sorted(pods, key=lambda pod: pod["metadata"]["name"]))
