"""Children in memory: kept up to date by watches and by the operator's own writes."""

from collections.abc import Callable, Iterable

from tunesmith.manifests.names import OWNER_UID_LABEL, TRAINER_CONTAINER
from tunesmith.manifests.objects import Body, with_first_deletion_request

from .bodies import version_of, without_managed_fields

#: Kinds that are watched by the owner's label; all others are listed each time.
WATCHED_KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("batch/v1", "Job"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ControllerRevision"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)

#: A failing Job removes its running pods, and with them their exit codes: up to this many are kept per resource.
MAX_REMOVED_PODS = 256

OnChange = Callable[[str], None]
"""Receiver of the UID of a resource, a child of which has changed."""


class ChildIndex:
    """Labeled objects by the UID of the resource that they belong to.

    Pods that ended before they were removed are kept until ``forget_removed_pods``: their exit codes and messages are
    read once their Job has ended.

    Reads its own writes: what the operator created is here before the watch delivers it, and an older version never
    replaces a newer one (resource versions of one kind are ordered).
    """

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._synced: dict[tuple[str, str], Callable[[], bool]] = {}
        self._objects: dict[tuple[str, str], dict[str, dict[str, Body]]] = {}
        self._removed_pods: dict[str, dict[str, Body]] = {}

    def follow(self, api_version: str, kind: str, synced: Callable[[], bool]) -> None:
        """Index this kind from now on; ``synced`` is true once all its objects were listed."""
        self._synced[api_version, kind] = synced
        self._objects.setdefault((api_version, kind), {})

    def find(self, api_version: str, kind: str, owner_uid: str) -> tuple[Body, ...] | None:
        """The objects with this owner's label; None when the kind is not followed or not yet synced."""
        synced = self._synced.get((api_version, kind))
        if synced is None or not synced():
            return None
        return tuple(self._objects[api_version, kind].get(owner_uid, {}).values())

    def put(self, api_version: str, kind: str, body: Body) -> bool:
        """Keep the object unless this version or a newer one is stored; returns whether it was kept."""
        owner = _owner(body)
        if owner is None or (api_version, kind) not in self._objects:
            return False
        children = self._objects[api_version, kind].setdefault(owner, {})
        uid = body["metadata"]["uid"]
        if uid in children and version_of(body) <= version_of(children[uid]):
            return False
        children[uid] = with_first_deletion_request(_stored(api_version, kind, body), children.get(uid))
        return True

    def drop(self, api_version: str, kind: str, body: Body) -> None:
        """Remove the object."""
        owner = _owner(body)
        children = self._objects.get((api_version, kind), {})
        if owner is not None and owner in children:
            children[owner].pop(body["metadata"]["uid"], None)
            if not children[owner]:
                del children[owner]

    def removed_pods(self, owner_uid: str) -> tuple[Body, ...]:
        """The owner's pods that ended and then were removed, in their last state."""
        return tuple(self._removed_pods.get(owner_uid, {}).values())

    def forget_removed_pods(self, owner_uid: str, keep: Callable[[Body], bool] = lambda _: False) -> None:
        """Forget the owner's removed pods but those to keep."""
        kept = {uid: body for uid, body in self._removed_pods.pop(owner_uid, {}).items() if keep(body)}
        if kept:
            self._removed_pods[owner_uid] = kept

    def handle_event(self, api_version: str, kind: str, event_type: str, body: Body) -> None:
        """Take over an event of a watch, and report its owner unless the operator itself wrote this version."""
        owner = _owner(body)
        if owner is None:
            return
        if event_type == "DELETED":
            if (
                kind == "Pod"
                and _has_terminated(body)
                and len(self._removed_pods.get(owner, ())) < MAX_REMOVED_PODS
            ):
                uid = body["metadata"]["uid"]
                earlier = self._objects.get((api_version, kind), {}).get(owner, {}).get(uid)
                stored = with_first_deletion_request(_stored(api_version, kind, body), earlier)
                self._removed_pods.setdefault(owner, {})[uid] = stored
            self.drop(api_version, kind, body)
            self._on_change(owner)
        elif self.put(api_version, kind, body):
            self._on_change(owner)

    def handle_list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        objects: Iterable[Body],
        version: int,
    ) -> None:
        """Take over a whole list of one namespace (None: of all), made at this version."""
        present = {body["metadata"]["uid"]: body for body in objects}
        for children in [*self._objects[api_version, kind].values()]:
            for uid, body in [*children.items()]:
                inside = namespace in (None, body["metadata"].get("namespace"))
                if inside and uid not in present and version_of(body) <= version:
                    self.handle_event(api_version, kind, "DELETED", body)
        for body in present.values():
            self.handle_event(api_version, kind, "ADDED", body)


def _owner(body: Body) -> str | None:
    owner: str | None = body["metadata"].get("labels", {}).get(OWNER_UID_LABEL)
    return owner


def _stored(api_version: str, kind: str, body: Body) -> Body:
    """The object as it is kept: objects of lists and watches may lack their kind."""
    return {**without_managed_fields(body), "apiVersion": api_version, "kind": kind}


def _has_terminated(pod: Body) -> bool:
    """True for a pod whose trainer has ended, or of whose containers one has, in a pod without a trainer."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    trainer = [status for status in statuses if status["name"] == TRAINER_CONTAINER] or statuses[:1]
    return any("terminated" in status.get("state", {}) for status in trainer)
