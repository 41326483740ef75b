"""Plan for one resource, as values: actions, status, events.

The actions are carried out in their order, then the status is written, then the events. Each may be carried out again:
creating what exists and deleting what is gone count as done. If an action that concerns one alias is refused, later
ones for this alias alone are left out. If an action with a condition of its own is refused, later ones with this
condition are left out, and status says the rest, with this condition.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith_contract.agent import DesiredState, UsageOfOthers


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object that is never changed afterwards; one of that name that exists already is left as it is.

    Attributes:
        alias: the alias that it concerns; empty if it concerns the whole resource.
        condition: type of the condition that shows its refusal; empty where a refusal withholds the status.
    """

    manifest: KubernetesObject
    alias: str = ""
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of an object."""

    manifest: KubernetesObject


@dataclass(frozen=True, slots=True)
class Patch:
    """JSON merge patch of an existing object; one that is gone counts as done.

    Attributes:
        alias: the alias that it concerns; empty if it concerns the whole resource.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    patch: KubernetesObject
    alias: str = ""

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
class Replace:
    """Replace an object as it was read; if somebody has changed it since, nothing is done and the pass ends.

    Attributes:
        manifest: with the ``resourceVersion`` that was read; without one the object is created, and must not exist.
        alias: the alias that it concerns. If it is refused, only the actions for this alias are left out.
    """

    manifest: KubernetesObject
    alias: str = ""

    @classmethod
    def of(cls, observed: Body | None, manifest: KubernetesObject, alias: str = "") -> "Replace":
        """Replacement of the observed object; its creation if there is none."""
        if observed is None:
            return cls(manifest, alias)
        version = observed["metadata"].get("resourceVersion")
        metadata = {**manifest["metadata"], "resourceVersion": version}
        return cls({**manifest, "metadata": metadata}, alias)


@dataclass(frozen=True, slots=True)
class Publication:
    """Desired state whose records were written before.

    Attributes:
        fallback: the state that was published before: it stays for aliases whose record could not be written.
    """

    desired: DesiredState
    fallback: DesiredState

    def without(self, unwritten: Collection[str]) -> DesiredState:
        """The desired state, with the former one for these aliases."""
        if not unwritten:
            return self.desired
        changed = [alias for alias in self.desired.aliases if alias.name not in unwritten]
        kept = [alias for alias in self.fallback.aliases if alias.name in unwritten]
        aliases = sorted((*changed, *kept), key=lambda alias: alias.name)
        return self.desired.model_copy(update={"aliases": tuple(aliases)})


@dataclass(frozen=True, slots=True)
class Mount:
    """Replace the ConfigMap that the pods mount, with this state in it."""

    manifest: KubernetesObject
    publication: Publication


@dataclass(frozen=True, slots=True)
class Push:
    """Send an AdapterDeployment's new desired state to its connected agents."""

    publication: Publication


@dataclass(frozen=True, slots=True)
class Tell:
    """Send to connected agents, by their pod's UID, what other pods have counted of their clients' tokens."""

    usage: Mapping[str, UsageOfOthers]


Action = Create | Apply | Patch | Delete | Replace | Mount | Push | Tell


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event about the resource: ``reason`` is a member of the kind's reasons.

    Attributes:
        condition: that of the actions that it tells of; if one of them is refused, the event is left out.
    """

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    condition: str = ""


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
