"""Execution of a plan: actions in their order, then the status, then the events."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import ApiError, Conflict, NameTaken, Refused
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.decide.plan import (
    Action,
    Apply,
    Create,
    Delete,
    Event,
    Mount,
    Patch,
    Plan,
    Push,
    Replace,
    Tell,
    owned_by,
)
from tunesmith.decide.refusal import RefusalReason, refused_condition, show_refused
from tunesmith.manifests.names import MANAGED_BY_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_config_maps import with_desired

from .live import AgentHub

Proceed = Callable[[], Awaitable[None]]
"""What comes before each write; raises ``ApiError`` where the plan is outdated."""


@dataclass(frozen=True, slots=True)
class Executed:
    """Result of a plan that was carried out.

    Attributes:
        body: the latest body of the resource.
        refused: error of an action with a condition of its own, which status shows; None if all are done.
    """

    body: Body
    refused: ApiError | None = None


async def execute(
    client: Client,
    agents: AgentHub,
    recorder: EventRecorder,
    body: Body,
    plan: Plan,
    now: datetime,
    proceed: Proceed,
    status_later: bool = False,
) -> Executed:
    """Carry out a plan for the resource.

    Args:
        proceed: called before each action and the status.
        status_later: the status is left to another pass, unless it has to show that an action was refused.

    Raises:
        ApiError: an action or the status failed; the actions before it are done, and may be done again. If an action
            for one alias failed, those for the others are done too, but the status is not written.
    """
    unwritten: set[str] = set()
    failure: ApiError | None = None
    refused: dict[str, ApiError] = {}
    for action in plan.actions:
        alias = action.alias if isinstance(action, Create | Patch | Replace) else ""
        condition = action.condition if isinstance(action, Create) and plan.status is not None else ""
        if alias in unwritten or condition in refused:
            continue
        await proceed()
        try:
            await act(client, agents, body, action, frozenset(unwritten))
        except Conflict:
            raise
        except ApiError as error:
            if condition:
                refused[condition] = error
                continue
            if not alias:
                raise
            unwritten.add(alias)
            failure = failure or error
    if failure is not None:
        raise failure
    conditions = [_condition_of(kind, error) for kind, error in refused.items()]
    status = plan.status
    if status is not None and conditions:
        status = show_refused(body, status, conditions, now)
    elif status_later:
        status = None
    if status is not None and status != body.get("status"):
        await proceed()
        body = await client.replace_status(body, status)
    told = [Event(condition.reason, condition.message, "Warning") for condition in conditions]
    for event in (*(event for event in plan.events if event.condition not in refused), *told):
        recorder.record(body, event)
    return Executed(body, next(iter(refused.values()), None))


def _condition_of(kind: str, error: ApiError) -> ConditionUpdate:
    reason = RefusalReason.UNAVAILABLE
    if isinstance(error, Refused):
        reason = RefusalReason.NAME_TAKEN if isinstance(error, NameTaken) else RefusalReason.REFUSED
    return refused_condition(kind, reason, error.message)


async def act(
    client: Client, agents: AgentHub, body: Body, action: Action, unwritten: frozenset[str] = frozenset()
) -> None:
    """Carry out one action; one that is done already counts as done.

    Args:
        unwritten: aliases whose changes could not be recorded, and are not published.

    Raises:
        Conflict: an object to be replaced has changed since it was read.
        NameTaken: an object of the name is there already, and is not the resource's.
    """
    match action:
        case Create(manifest):
            await _create(client, manifest)
        case Apply(manifest):
            await _apply(client, body, manifest)
        case Patch(api_version, kind, namespace, name, patch):
            await client.patch(api_version, kind, namespace, name, patch)
        case Delete(api_version, kind, namespace, name, uid):
            await client.delete(api_version, kind, namespace, name, uid)
        case Replace(manifest):
            await _replace(client, manifest)
        case Mount(manifest, publication):
            await _replace(client, with_desired(manifest, publication.without(unwritten)))
        case Push(publication):
            agents.push(body["metadata"]["uid"], publication.without(unwritten))
        case Tell(usage):
            agents.tell(body["metadata"]["uid"], usage)


async def _create(client: Client, manifest: Body) -> bool:
    """Create the object; returns False where the resource has one of that name already."""
    if await client.create(manifest) is not None:
        return True
    existing = await _find(client, manifest)
    if existing is None:
        # Removed meanwhile: the next pass makes it.
        raise _exists_already(manifest)
    if not _is_ours(existing, manifest):
        raise _name_taken(manifest)
    return False


async def _apply(client: Client, body: Body, manifest: Body) -> None:
    """Apply the object; the first time only where nobody else has one of that name, since an apply takes it over."""
    children = client.index.find(manifest["apiVersion"], manifest["kind"], body["metadata"]["uid"]) or ()
    name = manifest["metadata"]["name"]
    if all(child["metadata"]["name"] != name for child in children):
        existing = await _find(client, manifest)
        if existing is not None and not _is_ours(existing, manifest):
            raise _name_taken(manifest)
    await client.apply(manifest)


async def _replace(client: Client, manifest: Body) -> None:
    if manifest["metadata"].get("resourceVersion"):
        await client.replace(manifest)
    elif not await _create(client, manifest):
        raise _exists_already(manifest)


async def _find(client: Client, manifest: Body) -> Body | None:
    """The object of the manifest's name; by a list, since the operator may read single objects of few kinds only."""
    metadata = manifest["metadata"]
    selector = f"metadata.name={metadata['name']}"
    found = await client.list(
        manifest["apiVersion"], manifest["kind"], metadata["namespace"], field_selector=selector
    )
    return next(iter(found), None)


def _is_ours(existing: Body, manifest: Body) -> bool:
    """True for an object of the manifest's owner; for one without an owner, of Tunesmith."""
    owners = [reference["uid"] for reference in manifest["metadata"].get("ownerReferences", ())]
    if owners:
        return any(owned_by(existing, uid) for uid in owners)
    manager, found = (
        (body["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) for body in (manifest, existing)
    )
    return manager in (None, found)


def _exists_already(manifest: Body) -> Conflict:
    return Conflict(f"{manifest['kind']} {manifest['metadata']['name']} exists already", 409, "AlreadyExists")


def _name_taken(manifest: Body) -> NameTaken:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    message = f"{kind} {name} exists already and is not this resource's: delete it, or give this resource another name"
    return NameTaken(message, 409, "AlreadyExists")
