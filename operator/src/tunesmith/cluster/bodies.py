"""The latest known body of every resource, so that the fast path needs no read."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What the work queue holds."""

    kind: str
    namespace: str
    name: str


def key_of(body: dict[str, Any]) -> Key:
    """The key of a resource."""
    return Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def version_of(body: dict[str, Any]) -> int:
    """Resource versions of one kind are ordered."""
    return int(body["metadata"]["resourceVersion"])


class Bodies:
    """Bodies by key and by UID; an older one never replaces a newer one."""

    def __init__(self) -> None:
        self._bodies: dict[Key, dict[str, Any]] = {}
        self._keys: dict[str, Key] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._bodies))

    def get(self, key: Key) -> dict[str, Any] | None:
        """The latest body; not to be changed."""
        return self._bodies.get(key)

    def key(self, uid: str) -> Key | None:
        """Where the resource with this UID is."""
        return self._keys.get(uid)

    def put(self, body: dict[str, Any]) -> bool:
        """Keep the body unless this version or a newer one is known; returns whether it was kept."""
        key = key_of(body)
        known = self._bodies.get(key)
        if known is not None:
            if version_of(body) <= version_of(known):
                return False
            self._keys.pop(known["metadata"]["uid"], None)
        body["metadata"].pop("managedFields", None)
        self._bodies[key] = body
        self._keys[body["metadata"]["uid"]] = key
        return True

    def drop(self, body: dict[str, Any]) -> bool:
        """The resource of this UID is gone; returns whether it was known."""
        key = self._keys.pop(body["metadata"]["uid"], None)
        return key is not None and self._bodies.pop(key, None) is not None
