"""Latest bodies of the watched resources, and which resources refer to which."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tunesmith.api.actions import ACTION_ANNOTATION
from tunesmith.manifests.objects import Body

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


def version_of(body: Body) -> int:
    """The resource version as a number: versions of one kind are ordered."""
    return int(body["metadata"]["resourceVersion"])


def without_managed_fields(body: Body) -> Body:
    """The body without the largest part that nothing here reads."""
    if "managedFields" not in body["metadata"]:
        return body
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "metadata": metadata}


def with_writers(body: Body, annotation: str) -> Body:
    """The body, with managed fields reduced to who wrote this annotation."""
    member = f"f:{annotation}"
    fields: dict[str, Any] = {"f:metadata": {"f:annotations": {member: {}}}}
    writers = [
        {"manager": entry.get("manager", ""), "time": entry.get("time"), "fieldsV1": fields}
        for entry in body["metadata"].get("managedFields", ())
        if member in (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
    ]
    short = without_managed_fields(body)
    return {**short, "metadata": {**short["metadata"], "managedFields": writers}} if writers else short


class Bodies:
    """Bodies by key, by UID and by namespace; an older one never replaces a newer one, nor one that was deleted.

    The bodies that it returns are not to be changed.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._deleted = Tombstones(clock)
        self._bodies: dict[str, dict[str, dict[str, Body]]] = {}
        self._keys: dict[str, Key] = {}
        self._references: dict[Key, frozenset[Reference]] = {}
        self._referrers: dict[tuple[str, Reference], set[Key]] = {}

    def of_kind(self, kind: str) -> tuple[Body, ...]:
        """All bodies of a kind."""
        return tuple(body for bodies in self._bodies.get(kind, {}).values() for body in bodies.values())

    def in_namespace(self, kind: str, namespace: str) -> tuple[Body, ...]:
        """All bodies of a kind in a namespace."""
        return tuple(self._bodies.get(kind, {}).get(namespace, {}).values())

    def get(self, key: Key) -> Body | None:
        """The latest body."""
        return self._bodies.get(key.kind, {}).get(key.namespace, {}).get(key.name)

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
        stored = self.get(key)
        if stored is not None:
            new, old = version_of(body), version_of(stored)
            if new == old or (new < old and not went_back):
                return False
            self._keys.pop(stored["metadata"]["uid"], None)
        in_namespace = self._bodies.setdefault(key.kind, {}).setdefault(key.namespace, {})
        in_namespace[key.name] = with_writers(body, ACTION_ANNOTATION)
        self._keys[body["metadata"]["uid"]] = key
        return True

    def drop(self, body: Body) -> bool:
        """Remove the resource of this UID; returns whether it was stored."""
        self._deleted.add(body["metadata"]["uid"])
        key = self._keys.pop(body["metadata"]["uid"], None)
        if key is None:
            return False
        self.set_references(key, ())
        return self._bodies[key.kind][key.namespace].pop(key.name, None) is not None

    def go_back(self) -> None:
        """Forget what was deleted: it has come back with an older state of the API server."""
        self._deleted.clear()

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

    def referrers(self, key: Key) -> set[Key]:
        """The resources that refer to this one, by its name or by its kind."""
        references = (Reference(key.kind, key.name), Reference(key.kind, None))
        return set().union(*(self._referrers.get((key.namespace, reference), ()) for reference in references))
