"""Latest bodies of the watched resources, and which resources refer to which."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from tunesmith.api.actions import ACTION_ANNOTATION
from tunesmith.manifests.objects import Body

from .kept import Kept, Packer, unpacked, version_of, version_of_kept, without_unread_metadata
from .mentions import Mentions, hashes_of, mentioned_in
from .tombstones import Tombstones


class Key(NamedTuple):
    """Identity of a resource in the work queue."""

    kind: str
    namespace: str
    name: str


class Reference(NamedTuple):
    """A resource, or all resources of a kind (``name`` None), in the namespace of the one that refers to it."""

    kind: str
    name: str | None


def key_of(body: Body) -> Key:
    """The key of a resource."""
    return Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def with_writers(body: Body, annotation: str) -> Body:
    """The body, with managed fields reduced to who wrote this annotation."""
    member = f"f:{annotation}"
    fields: dict[str, Any] = {"f:metadata": {"f:annotations": {member: {}}}}
    writers = [
        {"manager": entry.get("manager", ""), "time": entry.get("time"), "fieldsV1": fields}
        for entry in body["metadata"].get("managedFields", ())
        if member in (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
    ]
    short = without_unread_metadata(body)
    return {**short, "metadata": {**short["metadata"], "managedFields": writers}} if writers else short


class Bodies:
    """Bodies by key, by UID and by namespace; an older one never replaces a newer one, nor one that was deleted.

    The bodies that it returns are not to be changed. Those of resources that have ended are kept packed.

    Args:
        has_ended: true for the body of a resource that has ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        has_ended: Callable[[Body], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._has_ended = has_ended
        self._deleted = Tombstones(clock)
        self._packer = Packer()
        self._bodies: dict[str, dict[str, dict[str, Kept]]] = {}
        self._keys: dict[str, Key] = {}
        # Of those that have ended; of the others so few are there that each is read.
        self._mentions: Mentions[Key] = Mentions()
        self._live: dict[tuple[str, str], dict[Key, None]] = {}
        self._awaited: dict[Key, frozenset[int]] = {}
        self._references: dict[Key, frozenset[Reference]] = {}
        self._referrers: dict[tuple[str, Reference], set[Key]] = {}

    def of_kind(self, kind: str) -> tuple[Body, ...]:
        """All bodies of a kind."""
        return tuple(
            unpacked(kept) for bodies in self._bodies.get(kind, {}).values() for kept in bodies.values()
        )

    def uids(self, kind: str, namespace: str | None = None) -> dict[str, Key]:
        """The keys of all resources of a kind, in a namespace (None: in all), by their UIDs."""
        return {
            uid: key
            for uid, key in self._keys.items()
            if key.kind == kind and (namespace is None or key.namespace == namespace)
        }

    def mentioning(self, kind: str, namespace: str, texts: Collection[str]) -> Iterator[Body]:
        """Bodies of a kind in a namespace; those that hold none of these digests and URIs may be left out.

        Those that have ended come first. Each is read when it is asked for, so that the first of many costs little.
        """
        place = (kind, namespace)
        ended = (key for key in self._mentions.find(hashes_of(texts)) if (key.kind, key.namespace) == place)
        for keys in (ended, tuple(self._live.get(place, ()))):
            for key in keys:
                body = self.get(key)
                if body is not None:
                    yield body

    def get(self, key: Key) -> Body | None:
        """The latest body."""
        kept = self._kept(key)
        return None if kept is None else unpacked(kept)

    def key(self, uid: str) -> Key | None:
        """The key of the resource with this UID."""
        return self._keys.get(uid)

    def put(self, body: Body, went_back: bool = False) -> bool:
        """Keep the body unless it is deleted, or this version or a newer one is stored; returns whether it was kept.

        Args:
            went_back: the API server's data are older than what was seen before: any other version counts.
        """
        if body["metadata"]["uid"] in self._deleted:
            return False
        key = key_of(body)
        stored = self._kept(key)
        if stored is not None:
            new, old = version_of(body), version_of_kept(stored)
            if new == old or (new < old and not went_back):
                return False
            self._keys.pop(unpacked(stored)["metadata"]["uid"], None)
        in_namespace = self._bodies.setdefault(key.kind, {}).setdefault(key.namespace, {})
        kept = with_writers(body, ACTION_ANNOTATION)
        has_ended = self._has_ended(body)
        in_namespace[key.name] = self._packer.pack(kept) if has_ended else kept
        self._keys[body["metadata"]["uid"]] = key
        live = self._live.setdefault((key.kind, key.namespace), {})
        self._mentions.drop(key)
        if has_ended:
            self._mentions.add(key, mentioned_in(kept))
            live.pop(key, None)
        else:
            live[key] = None
        return True

    def drop(self, body: Body) -> bool:
        """Remove the resource of this UID; returns whether it was stored."""
        self._deleted.add(body["metadata"]["uid"])
        key = self._keys.pop(body["metadata"]["uid"], None)
        if key is None:
            return False
        self.set_references(key, ())
        self._awaited.pop(key, None)
        self._mentions.drop(key)
        self._live[key.kind, key.namespace].pop(key, None)
        return self._bodies[key.kind][key.namespace].pop(key.name, None) is not None

    def go_back(self) -> None:
        """Forget what was deleted: it has come back with an older state of the API server."""
        self._deleted.clear()

    def _kept(self, key: Key) -> Kept | None:
        return self._bodies.get(key.kind, {}).get(key.namespace, {}).get(key.name)

    def set_references(self, key: Key, references: Iterable[Reference]) -> None:
        """Replace what the resource refers to."""
        before, after = self._references.get(key, frozenset()), frozenset(references)
        for reference in before - after:
            referrers = self._referrers[key.namespace, reference]
            referrers.discard(key)
            if not referrers:
                del self._referrers[key.namespace, reference]
        for reference in after - before:
            self._referrers.setdefault((key.namespace, reference), set()).add(key)
        if after:
            self._references[key] = after
        else:
            self._references.pop(key, None)

    def await_mentions(self, key: Key, texts: Iterable[str]) -> None:
        """Of a kind that the resource refers to, only what mentions one of these texts concerns it from now on."""
        self._awaited[key] = hashes_of(texts)

    def has_referrers(self, key: Key) -> bool:
        """Whether any resource refers to this one, by its name or by its kind."""
        named, any_of_kind = Reference(key.kind, key.name), Reference(key.kind, None)
        return not self._referrers.keys().isdisjoint(((key.namespace, named), (key.namespace, any_of_kind)))

    def referrers(self, key: Key, mentioned: frozenset[int] = frozenset()) -> set[Key]:
        """The resources that refer to this one, by its name or by its kind.

        Args:
            mentioned: hashes of what this one mentions; who refers to its kind may await something else.
        """
        by_name = self._referrers.get((key.namespace, Reference(key.kind, key.name)), ())
        by_kind = self._referrers.get((key.namespace, Reference(key.kind, None)), ())
        awaited = self._awaited
        return {*by_name, *(each for each in by_kind if each not in awaited or mentioned & awaited[each])}
