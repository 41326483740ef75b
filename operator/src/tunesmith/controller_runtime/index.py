"""Children in memory: kept up to date by watches and by the operator's own writes."""

from collections.abc import Callable, Iterable
from typing import Any

from tunesmith.manifests.names import OWNER_UID_LABEL

#: Kinds that are watched by the owner's label; all others are listed each time.
WATCHED_KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("batch/v1", "Job"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ControllerRevision"),
)

#: A Job that fails removes the pods that still run, with their last words: so many of a resource are remembered.
MAX_DEPARTED = 256

Changed = Callable[[str], None]
"""A child of the resource with this UID changed."""


class ChildIndex:
    """Labelled objects by the UID of the resource that they belong to.

    Pods that ended before they went are remembered until ``forget_departed``: their last words are read once their Job
    has ended.

    Reads its own writes: what the operator created is here before the watch tells of it, and an older version never
    replaces a newer one (resource versions of one kind are ordered).
    """

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._synced: dict[tuple[str, str], Callable[[], bool]] = {}
        self._objects: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}
        self._departed: dict[str, dict[str, dict[str, Any]]] = {}

    def follow(self, api_version: str, kind: str, synced: Callable[[], bool]) -> None:
        """From now on this kind is watched; ``synced`` says whether all of it is known."""
        self._synced[api_version, kind] = synced
        self._objects.setdefault((api_version, kind), {})

    def find(self, api_version: str, kind: str, owner_uid: str) -> tuple[dict[str, Any], ...] | None:
        """The objects with this owner's label; None when the kind is not (yet) followed."""
        synced = self._synced.get((api_version, kind))
        if synced is None or not synced():
            return None
        return tuple(self._objects[api_version, kind].get(owner_uid, {}).values())

    def put(self, api_version: str, kind: str, body: dict[str, Any]) -> bool:
        """Keep the object unless a newer version is known already; returns whether it was kept."""
        owner = _owner(body)
        if owner is None or (api_version, kind) not in self._objects:
            return False
        known = self._objects[api_version, kind].setdefault(owner, {})
        uid = body["metadata"]["uid"]
        if uid in known and _version(body) <= _version(known[uid]):
            return False
        body["metadata"].pop("managedFields", None)
        known[uid] = body | {"apiVersion": api_version, "kind": kind}
        return True

    def drop(self, api_version: str, kind: str, body: dict[str, Any]) -> None:
        """The object is gone."""
        owner = _owner(body)
        known = self._objects.get((api_version, kind), {})
        if owner is not None and owner in known:
            known[owner].pop(body["metadata"]["uid"], None)
            if not known[owner]:
                del known[owner]

    def departed(self, owner_uid: str) -> tuple[dict[str, Any], ...]:
        """The owner's pods that ended and then were removed, as they were last."""
        return tuple(self._departed.get(owner_uid, {}).values())

    def forget_departed(
        self, owner_uid: str, keep: Callable[[dict[str, Any]], bool] = lambda _: False
    ) -> None:
        """Forget the owner's departed pods but those to keep."""
        kept = {uid: body for uid, body in self._departed.pop(owner_uid, {}).items() if keep(body)}
        if kept:
            self._departed[owner_uid] = kept

    def _remember(self, api_version: str, kind: str, owner: str, body: dict[str, Any]) -> None:
        known = self._departed.get(owner, {})
        if kind != "Pod" or not _has_terminated(body) or len(known) >= MAX_DEPARTED:
            return
        body["metadata"].pop("managedFields", None)
        self._departed.setdefault(owner, {})[body["metadata"]["uid"]] = body | {
            "apiVersion": api_version,
            "kind": kind,
        }

    def seen(self, api_version: str, kind: str, event_type: str, body: dict[str, Any]) -> None:
        """Take over an event of a watch, and tell whose child changed unless it was known."""
        owner = _owner(body)
        if owner is None:
            return
        if event_type == "DELETED":
            self._remember(api_version, kind, owner, body)
            self.drop(api_version, kind, body)
            self._changed(owner)
        elif self.put(api_version, kind, body):
            self._changed(owner)

    def listed(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        objects: Iterable[dict[str, Any]],
        version: int,
    ) -> None:
        """Take over a whole list of one namespace (None: of all), made at this version."""
        present = {body["metadata"]["uid"]: body for body in objects}
        for known in [*self._objects[api_version, kind].values()]:
            for uid, body in [*known.items()]:
                inside = namespace in (None, body["metadata"].get("namespace"))
                if inside and uid not in present and _version(body) <= version:
                    self.seen(api_version, kind, "DELETED", body)
        for body in present.values():
            self.seen(api_version, kind, "ADDED", body)


def _owner(body: dict[str, Any]) -> str | None:
    owner: str | None = body["metadata"].get("labels", {}).get(OWNER_UID_LABEL)
    return owner


def _version(body: dict[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


def _has_terminated(pod: dict[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return "terminated" in statuses[0].get("state", {})
