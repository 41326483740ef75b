"""Children in memory: kept up to date by watches and by the operator's own writes."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from tunesmith.manifests.names import OWNER_UID_LABEL, TRAINER_CONTAINER
from tunesmith.manifests.objects import Body, with_first_deletion_request
from tunesmith.manifests.verdict_records import VERDICTS_OWNER, verdicts_group

from .kept import Kept, Packed, Packer, stripped, unpacked, version_of_kept
from .mentions import Mentions, hashes_of, mentioned_in
from .tombstones import Tombstones

logger = logging.getLogger(__name__)

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

OnPod = Callable[[Body, bool], None]
"""Receiver of a pod that has changed, with all that the API server told of it, and of whether it is deleted."""
#: Conditions by which a Job has ended, or is about to.
_ENDS_OF_JOBS = frozenset({"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"})

_OF_NEW_PODS = frozenset({"phase", "qosClass"})
_VERSIONS = frozenset({"resourceVersion", "generation"})

_Kind = tuple[str, str]
_CONFIG_MAP = ("v1", "ConfigMap")


class ChildIndex:
    """Labeled objects by the UID of the resource that they belong to.

    Pods that ended before they were removed are kept until ``forget_removed_pods``: their exit codes and messages are
    read once their Job has ended.

    Reads its own writes: what the operator created is here before the watch delivers it, and an older version never
    replaces a newer one (resource versions of one kind are ordered). What is known to be deleted never comes back: the
    response to a write may be handled after the watch has told of the deletion.

    What a list brought and nobody has read yet, and the children of resources that have ended, are kept packed; so are
    the verdicts on artifacts, which belong to no resource: each ConfigMap is found by ``verdicts_group`` of its name.

    Args:
        clock: monotonic seconds.
        on_pod: is told of each pod, with the members that are not kept.
        on_step: receiver of changes by which nothing has ended, such as a pod that was scheduled: more of them follow
            within a moment. None: ``on_change``.
    """

    def __init__(
        self,
        on_change: OnChange,
        clock: Callable[[], float] = time.monotonic,
        on_step: OnChange | None = None,
        on_pod: OnPod | None = None,
    ) -> None:
        self._on_change = on_change
        self._on_pod = on_pod
        self._on_step = on_step or on_change
        self._synced: dict[_Kind, Callable[[], bool]] = {}
        self._objects: dict[_Kind, dict[str, dict[str, Kept]]] = {}
        self._removed_pods: dict[str, dict[str, Body]] = {}
        self._ended: set[str] = set()
        self._mentions: Mentions[str] = Mentions()
        self._deleted = Tombstones(clock)
        self._packer = Packer()

    def follow(self, api_version: str, kind: str, synced: Callable[[], bool]) -> None:
        """Index this kind from now on; ``synced`` is true once all its objects were listed."""
        self._synced[api_version, kind] = synced
        self._objects.setdefault((api_version, kind), {})

    def find(self, api_version: str, kind: str, owner_uid: str) -> tuple[Body, ...] | None:
        """The objects with this owner's label; None when the kind is not followed or not yet synced."""
        if not self._is_synced(api_version, kind):
            return None
        children = self._objects[api_version, kind].get(owner_uid, {})
        found = {uid: unpacked(kept) for uid, kept in children.items()}
        if not self._stays_packed(owner_uid):
            children.update(found)
        return tuple(found.values())

    def owners_mentioning(self, texts: Iterable[str]) -> Iterator[str] | None:
        """Owners of ConfigMaps that hold one of these digests and URIs, and maybe others; None as for ``find``."""
        return self._mentions.find(hashes_of(texts)) if self._is_synced(*_CONFIG_MAP) else None

    def mentioned_by(self, owner_uid: str) -> frozenset[int]:
        """Hashes of the digests and URIs in the owner's ConfigMaps."""
        return self._mentions.of(owner_uid)

    def put(self, api_version: str, kind: str, body: Body) -> bool:
        """Keep the object unless it is deleted, or this version or a newer one is stored; returns whether it was."""
        owner = _owner(body)
        if owner is None or (api_version, kind) not in self._objects:
            return False
        uid = body["metadata"]["uid"]
        if uid in self._deleted:
            return False
        # The same text is a key for each kind.
        children = self._objects[api_version, kind].setdefault(sys.intern(owner), {})
        earlier = children.get(uid)
        if earlier is not None and int(body["metadata"]["resourceVersion"]) <= version_of_kept(earlier):
            return False
        earlier = None if earlier is None else unpacked(earlier)
        stored = with_first_deletion_request(stripped(api_version, kind, body), earlier)
        children[uid] = self._packer.pack(stored) if self._stays_packed(owner) else stored
        if (api_version, kind) == _CONFIG_MAP:
            self._mentions.add(sys.intern(owner), mentioned_in(stored))
        if kind == "Pod" and self._on_pod is not None:
            self._on_pod(body, False)
        return True

    def drop(self, api_version: str, kind: str, body: Body) -> None:
        """Remove the object."""
        self._deleted.add(body["metadata"]["uid"])
        self._remove(api_version, kind, body)

    def set_ended(self, owner_uid: str, ended: bool) -> None:
        """Pack the children of a resource that has ended, and keep them packed; they are read seldom."""
        if not ended:
            self._ended.discard(owner_uid)
            return
        self._ended.add(owner_uid)
        self._removed_pods.pop(owner_uid, None)
        for owners in self._objects.values():
            children = owners.get(owner_uid, {})
            for uid, kept in children.items():
                children[uid] = self._packer.pack(kept)

    def removed_pods(self, owner_uid: str) -> tuple[Body, ...]:
        """The owner's pods that ended and then were removed, in their last state."""
        return tuple(self._removed_pods.get(owner_uid, {}).values())

    def forget_removed_pods(self, owner_uid: str, keep: Callable[[Body], bool] = lambda _: False) -> None:
        """Forget the owner's removed pods but those to keep."""
        kept = {uid: body for uid, body in self._removed_pods.pop(owner_uid, {}).items() if keep(body)}
        if kept:
            self._removed_pods[owner_uid] = kept

    def handle_event(self, api_version: str, kind: str, event_type: str, body: Body) -> None:
        """Take over an event of a watch, and report its owner unless the operator itself wrote this version.

        An object that can't be read is left out, with a line in the log: it must not end the watch of all others.
        """
        try:
            self._handle_event(api_version, kind, event_type, body)
        except Exception:
            logger.exception("odd %s left out", kind, extra={"resource": _reference(kind, body)})

    def begin_list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        went_back: bool = False,
        owner_uid: str | None = None,
    ) -> "IndexListing":
        """A list of one namespace (None: of all) to be taken over page by page.

        Args:
            went_back: the API server's data are older than what was seen before: the list counts, whatever its
                versions.
            owner_uid: the list holds this owner's objects only.
        """
        if went_back:
            self.go_back()
        return IndexListing(self, (api_version, kind), namespace, went_back, owner_uid)

    def go_back(self) -> None:
        """Forget what was deleted and removed: the API server's data went back, and it may be there again, and run."""
        self._deleted.clear()
        self._removed_pods.clear()

    def _is_synced(self, api_version: str, kind: str) -> bool:
        synced = self._synced.get((api_version, kind))
        return synced is not None and synced()

    def _handle_event(self, api_version: str, kind: str, event_type: str, body: Body) -> None:
        owner = _owner(body)
        if owner is None:
            return
        before = self._kept(api_version, kind, body)
        if event_type == "DELETED":
            if (
                kind == "Pod"
                and _has_terminated(body)
                and len(self._removed_pods.get(owner, ())) < MAX_REMOVED_PODS
            ):
                earlier = None if before is None else unpacked(before)
                stored = with_first_deletion_request(stripped(api_version, kind, body), earlier)
                self._removed_pods.setdefault(owner, {})[body["metadata"]["uid"]] = stored
            self.drop(api_version, kind, body)
            self._on_change(owner)
        elif not self.put(api_version, kind, body):
            return
        elif _has_an_end(kind, body):
            self._on_change(owner)
        elif _is_news(kind, body, before, self._kept(api_version, kind, body)):
            self._on_step(owner)

    def _kept(self, api_version: str, kind: str, body: Body) -> Kept | None:
        children = self._objects.get((api_version, kind), {}).get(_owner(body) or "", {})
        return children.get(body["metadata"]["uid"])

    def _remove(self, api_version: str, kind: str, body: Body) -> None:
        owner = _owner(body)
        children = self._objects.get((api_version, kind), {})
        if owner is not None and owner in children:
            children[owner].pop(body["metadata"]["uid"], None)
            if not children[owner]:
                del children[owner]
                if (api_version, kind) == _CONFIG_MAP:
                    self._mentions.drop(owner)
        if kind == "Pod" and self._on_pod is not None:
            self._on_pod(body, True)

    def _stays_packed(self, owner: str) -> bool:
        return owner in self._ended or owner.startswith(VERDICTS_OWNER)


class IndexListing:
    """A list that the index takes over page by page; at its end, what no page had is removed."""

    def __init__(
        self, index: ChildIndex, kind: _Kind, namespace: str | None, went_back: bool, owner_uid: str | None
    ) -> None:
        self._index = index
        self._kind = kind
        self._namespace = namespace
        self._went_back = went_back
        self._owner_uid = owner_uid
        self._present: set[str] = set()
        self._version = 0

    def add(self, bodies: Iterable[Body], version: int) -> None:
        """Take over one page of the list that was made at this version."""
        self._version = version
        for body in bodies:
            self._present.add(body["metadata"]["uid"])
            if self._went_back:
                self._index._remove(*self._kind, body)
            self._index.handle_event(*self._kind, "ADDED", body)
            self._pack(body)

    def end(self) -> None:
        """Remove what the list lacks."""
        for body in self._missing():
            if self._went_back:
                # It may be younger than the list: then the watch brings it back.
                self._index._remove(*self._kind, body)
                self._index._on_change(str(_owner(body)))
            else:
                self._index.handle_event(*self._kind, "DELETED", body)

    def _pack(self, body: Body) -> None:
        """Most of what is listed at the start belongs to resources that have ended."""
        uid, children = body["metadata"]["uid"], self._index._objects[self._kind].get(_owner(body) or "", {})
        if uid in children:
            children[uid] = self._index._packer.pack(children[uid])

    def _missing(self) -> list[Body]:
        """What is known of this place, is not younger than the list, and is not in it."""
        owners = self._index._objects[self._kind]
        known = tuple(owners.values()) if self._owner_uid is None else (owners.get(self._owner_uid, {}),)
        return [
            unpacked(kept)
            for children in known
            for uid, kept in children.items()
            if uid not in self._present
            and self._namespace in (None, _namespace(kept))
            and (self._went_back or version_of_kept(kept) <= self._version)
        ]


def _owner(body: Body) -> str | None:
    metadata = body["metadata"]
    owner: str | None = (metadata.get("labels") or {}).get(OWNER_UID_LABEL)
    return verdicts_group(metadata["namespace"], metadata["name"]) if owner == VERDICTS_OWNER else owner


def _reference(kind: str, body: Body) -> dict[str, str]:
    metadata = body.get("metadata") or {}
    return {"kind": kind, "namespace": str(metadata.get("namespace")), "name": str(metadata.get("name"))}


def _namespace(kept: Kept) -> str | None:
    namespace: str | None = kept.namespace if isinstance(kept, Packed) else kept["metadata"].get("namespace")
    return namespace


def _has_an_end(kind: str, body: Body) -> bool:
    """True for a Job that has ended or is about to, for a pod of which a container has, and for what is deleted."""
    status = body.get("status") or {}
    if "deletionTimestamp" in body["metadata"]:
        return True
    if kind == "Job":
        conditions = status.get("conditions") or ()
        return any(item["type"] in _ENDS_OF_JOBS and item["status"] == "True" for item in conditions)
    return kind == "Pod" and (status.get("phase") in {"Succeeded", "Failed"} or _has_terminated(body))


def _is_news(kind: str, body: Body, earlier: Kept | None, kept: Kept | None) -> bool:
    """False for what no plan reads: counters and the start of a Job, and a new pod that says nothing yet.

    The next event of such a pod follows at once, with what its scheduler thinks of it.
    """
    if earlier is None or kept is None:
        status = body.get("status") or {}
        return kind != "Pod" or bool(status.keys() - _OF_NEW_PODS) or status.get("phase") != "Pending"
    return _read_part(kind, unpacked(earlier)) != _read_part(kind, unpacked(kept))


def _read_part(kind: str, kept: Body) -> Body:
    """What plans read of an object and may answer to at once."""
    metadata = {name: value for name, value in kept["metadata"].items() if name not in _VERSIONS}
    part = {**kept, "metadata": metadata}
    if kind == "Job":
        part["status"] = (kept.get("status") or {}).get("conditions")
    return part


def _has_terminated(pod: Body) -> bool:
    """True for a pod whose trainer has ended, or of whose containers one has, in a pod without a trainer."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    trainer = [status for status in statuses if status["name"] == TRAINER_CONTAINER] or statuses[:1]
    return any("terminated" in status.get("state", {}) for status in trainer)
