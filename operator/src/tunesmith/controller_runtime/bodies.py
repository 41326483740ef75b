"""The latest known body of every resource, so that the fast path needs no read."""

from collections import defaultdict
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
        self._bodies: defaultdict[str, dict[Key, dict[str, Any]]] = defaultdict(dict)
        self._keys: dict[str, Key] = {}

    def of_kind(self, kind: str) -> tuple[dict[str, Any], ...]:
        """All bodies of a kind; not to be changed."""
        return tuple(self._bodies[kind].values())

    def get(self, key: Key) -> dict[str, Any] | None:
        """The latest body; not to be changed."""
        return self._bodies[key.kind].get(key)

    def key(self, uid: str) -> Key | None:
        """Where the resource with this UID is."""
        return self._keys.get(uid)

    def put(self, body: dict[str, Any]) -> bool:
        """Keep the body unless this version or a newer one is known; returns whether it was kept."""
        key = key_of(body)
        known = self._bodies[key.kind].get(key)
        if known is not None:
            if version_of(body) <= version_of(known):
                return False
            self._keys.pop(known["metadata"]["uid"], None)
        body["metadata"].pop("managedFields", None)
        self._bodies[key.kind][key] = body
        self._keys[body["metadata"]["uid"]] = key
        return True

    def drop(self, body: dict[str, Any]) -> bool:
        """The resource of this UID is gone; returns whether it was known."""
        key = self._keys.pop(body["metadata"]["uid"], None)
        return key is not None and self._bodies[key.kind].pop(key, None) is not None
