"""Objects as they are kept in memory: without what nobody reads, and packed where they are rarely read."""

import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from tunesmith.manifests.objects import Body
from tunesmith.manifests.outbound import AUTHORITIES

#: With a dictionary, 40 µs to write and 10 µs to read an object; a higher level takes longer and saves little.
_LEVEL = 3
#: A deflate stream without a header.
_RAW = -15
#: A larger dictionary takes longer to load than it saves.
_DICTIONARY_BYTES = 16384
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Packed:
    """An object as compressed JSON, which refers to a dictionary of its kind."""

    version: int
    namespace: str | None
    data: bytes
    dictionary: bytes

    def unpack(self) -> Body:
        """The object as it was."""
        text = zlib.decompressobj(_RAW, zdict=self.dictionary).decompress(self.data)
        body: Body = orjson.loads(text)
        return body


class Packer:
    """Packs objects with a dictionary for each kind, made of the first ones: objects of one kind are much alike."""

    def __init__(self) -> None:
        self._samples: dict[str, list[bytes]] = {}
        self._dictionaries: dict[str, bytes] = {}

    def pack(self, kept: "Kept") -> Packed:
        """The object, packed; one that is packed already as it is."""
        if isinstance(kept, Packed):
            return kept
        text = orjson.dumps(kept)
        dictionary = self._dictionary(str(kept.get("kind")), text)
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, zdict=dictionary)
        data = deflate.compress(text) + deflate.flush()
        namespace = kept["metadata"].get("namespace")
        # The few names of namespaces are kept once each.
        shared = sys.intern(namespace) if namespace else None
        return Packed(version_of(kept), shared, data, dictionary)

    def _dictionary(self, kind: str, text: bytes) -> bytes:
        """The kind's dictionary; empty while objects are gathered for it, of which this one may be one."""
        if kind in self._dictionaries:
            return self._dictionaries[kind]
        samples = self._samples.setdefault(kind, [])
        samples.append(text)
        if sum(map(len, samples)) >= _DICTIONARY_BYTES:
            # What is like most objects is near the end, where it is found best.
            self._dictionaries[kind] = b"".join(self._samples.pop(kind))[-_DICTIONARY_BYTES:]
        return b""


Kept = Body | Packed
"""An object as it is kept."""


def unpacked(kept: Kept) -> Body:
    """The object as it was."""
    return kept.unpack() if isinstance(kept, Packed) else kept


def version_of_kept(kept: Kept) -> int:
    """The resource version as a number."""
    return kept.version if isinstance(kept, Packed) else version_of(kept)


def version_of(body: Body) -> int:
    """The resource version as a number: versions of one kind are ordered."""
    return int(body["metadata"]["resourceVersion"])


def without_unread_metadata(body: Body) -> Body:
    """The body without managed fields and without kubectl's copy of what was applied."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    if "managedFields" not in metadata and _LAST_APPLIED not in annotations:
        return body
    metadata = {name: value for name, value in metadata.items() if name != "managedFields"}
    if _LAST_APPLIED in annotations:
        metadata["annotations"] = {key: text for key, text in annotations.items() if key != _LAST_APPLIED}
    return {**body, "metadata": metadata}


def stripped(api_version: str, kind: str, body: Body) -> Body:
    """A child without what no observation reads; objects of lists and watches may lack their kind."""
    kept = {**without_unread_metadata(body), "apiVersion": api_version, "kind": kind}
    spec = body.get("spec") or {}
    if kind == "Job":
        kept["spec"] = {name: value for name, value in spec.items() if name != "template"}
        if "template" in spec:
            # Of it the inputs of a job are made again whose ConfigMap was deleted.
            kept["spec"]["template"] = {"spec": _stripped_pod_spec(spec["template"]["spec"])}
    elif kind == "Pod":
        kept["spec"] = _stripped_pod_spec(spec)
    return kept


def _stripped_pod_spec(spec: Body) -> Body:
    """Names and images of the containers, the Secrets that are mounted, and the ConfigMap of authorities."""
    kept: dict[str, Any] = {"containers": _names_and_images(spec.get("containers") or ())}
    if spec.get("initContainers"):
        kept["initContainers"] = _names_and_images(spec["initContainers"])
    volumes = [
        volume for volume in spec.get("volumes") or () if "secret" in volume or volume["name"] == AUTHORITIES
    ]
    if volumes:
        kept["volumes"] = volumes
    return kept


def _names_and_images(containers: Iterable[Body]) -> list[dict[str, str]]:
    return [{key: item[key] for key in ("name", "image") if key in item} for item in containers]
