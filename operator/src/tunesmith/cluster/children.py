"""Children of a resource: from the index, or listed where their kind is not indexed."""

from collections.abc import Collection

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.plan import owned_by
from tunesmith.manifests.finished_work import finished_work_owner
from tunesmith.manifests.names import Metadata, Owner, children_selector
from tunesmith.manifests.objects import Body
from tunesmith.manifests.verdict_records import VERDICTS_OWNER, has_verdicts, verdicts_group, verdicts_name


async def observe_children(client: Client, api_version: str, kind: str, owner: Metadata) -> tuple[Body, ...]:
    """The resource's children of this kind, in the order of their names.

    Found by the owner's label and confirmed by the owner reference. Pods of a Job belong to the Job, not to the
    resource: for them see ``observe_pods``.
    """
    labeled = await _labeled(client, api_version, kind, owner)
    return tuple(child for child in labeled if owned_by(child, owner.uid))


async def observe_pods(client: Client, owner: Metadata) -> tuple[Body, ...]:
    """The pods of a resource's Jobs and Deployments, in the order of their names, found by the owner's label."""
    return tuple(await _labeled(client, "v1", "Pod", owner))


async def observe_verdicts(client: Client, namespace: str, digests: Collection[str]) -> tuple[Body, ...]:
    """The ConfigMaps of the namespace that keep the verdicts on artifacts of these digests."""
    names = sorted({verdicts_name(digest) for digest in digests if has_verdicts(digest)})
    found = [client.index.find("v1", "ConfigMap", verdicts_group(namespace, name)) for name in names]
    if None in found:
        listed = await client.list("v1", "ConfigMap", namespace, children_selector(VERDICTS_OWNER))
        return tuple(body for body in listed if body["metadata"]["name"] in names)
    return tuple(body for bodies in found for body in bodies or ())


async def observe_finished_work(client: Client, owner: Owner) -> tuple[Body, ...]:
    """The ConfigMap with finished work of resources of this name, if there is one."""
    label, namespace = finished_work_owner(owner), owner.metadata.namespace
    bodies = client.index.find("v1", "ConfigMap", label)
    if bodies is None:
        bodies = tuple(await client.list("v1", "ConfigMap", namespace, children_selector(label)))
    return tuple(body for body in bodies if body["metadata"].get("namespace") == namespace)


async def _labeled(client: Client, api_version: str, kind: str, owner: Metadata) -> list[Body]:
    bodies = client.index.find(api_version, kind, owner.uid)
    if bodies is None:
        bodies = tuple(await client.list(api_version, kind, owner.namespace, children_selector(owner.uid)))
    return sorted(bodies, key=lambda body: str(body["metadata"]["name"]))
