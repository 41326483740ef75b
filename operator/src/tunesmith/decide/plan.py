"""Plan for one resource, as values: actions, status, events.

The actions are carried out in their order, then the status is written, then the events. Each may be carried out again:
creating what exists and deleting what is gone count as done.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith_contract.agent import DesiredState


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object that is never changed afterwards; one of that name that exists already is left as it is."""

    manifest: KubernetesObject


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of an object."""

    manifest: KubernetesObject


@dataclass(frozen=True, slots=True)
class Patch:
    """JSON merge patch of an existing object; one that is gone counts as done."""

    api_version: str
    kind: str
    namespace: str
    name: str
    patch: KubernetesObject

    @classmethod
    def of(cls, body: Body, patch: KubernetesObject) -> "Patch":
        """A patch of this observed object."""
        metadata = body["metadata"]
        return cls(body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"], patch)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object with its dependents in the background, if it still has this UID."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, body: Body) -> "Delete":
        """Deletion of this observed object."""
        metadata = body["metadata"]
        return cls(body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


@dataclass(frozen=True, slots=True)
class Push:
    """Send an AdapterDeployment's new desired state to its connected agents, after its record was written."""

    namespace: str
    name: str
    desired: DesiredState


Action = Create | Apply | Patch | Delete | Push


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event about the resource: ``reason`` is a member of the kind's reasons."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions, status and events for one resource.

    Attributes:
        actions: in their order.
        status: the whole new status; None leaves it as it is.
        events: published once the status is written.
        requeue_after: seconds until the next reconcile, whatever happens; None: when the resource changes.
    """

    actions: tuple[Action, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = field(default=())
    requeue_after: float | None = None


def soonest(*seconds: float | None) -> float | None:
    """The shortest of several waits until the next reconcile."""
    return min((wait for wait in seconds if wait is not None), default=None)


def owned_by(body: Body, uid: str) -> bool:
    """True for an object that is owned by the resource with this UID."""
    return any(reference.get("uid") == uid for reference in body["metadata"].get("ownerReferences", ()))
