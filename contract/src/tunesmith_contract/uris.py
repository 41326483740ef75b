"""Storage URIs, and where a pod finds what they name.

``pvc://claim/path``, ``configmap://name/key`` and ``hf://org/repo@revision``. The first two become volumes,
mounted under ``MOUNT_ROOT`` by the operator and read there by trainer and agent.
"""

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

MOUNT_ROOT = PurePosixPath("/mnt/tunesmith")

_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_CONFIGMAP_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_HF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<path>(/[\w.-]+)*)(@(?P<revision>[\w./-]+))?"
)


class Scheme(StrEnum):
    """The kinds of storage a URI may name."""

    PVC = "pvc"
    CONFIGMAP = "configmap"
    HF = "hf"


class InvalidUri(ValueError):
    """The URI names no storage; the message says what to write instead."""


class StorageUri(NamedTuple):
    """A parsed storage URI.

    Attributes:
        scheme: the kind of storage.
        name: the claim, the ConfigMap, or ``org/repo``.
        path: the path in the claim or repository without a leading slash, or the ConfigMap's key; may be empty.
        revision: the branch, tag or commit of an ``hf://`` URI, else None.
    """

    scheme: Scheme
    name: str
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.scheme}://{self.name}{path}{revision}"

    def join(self, *parts: str) -> "StorageUri":
        """The URI of something below this one."""
        return self._replace(path="/".join(filter(None, (self.path.rstrip("/"), *parts))))


def parse_uri(uri: str) -> StorageUri:
    """Take a storage URI apart.

    Raises:
        InvalidUri: unknown scheme, missing part, or a path that leaves its volume.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in set(Scheme):
        known = "pvc://claim/path, configmap://name/key or hf://org/repo@revision"
        raise InvalidUri(f"{uri!r} is not a storage URI: write {known}")
    match Scheme(scheme):
        case Scheme.PVC:
            return _parse_pvc(uri, rest)
        case Scheme.CONFIGMAP:
            return _parse_configmap(uri, rest)
        case Scheme.HF:
            return _parse_hf(uri, rest)


def mount_path(uri: StorageUri) -> PurePosixPath:
    """Where a pod finds what a ``pvc://`` or ``configmap://`` URI names.

    Raises:
        InvalidUri: ``hf://`` is fetched, not mounted.
    """
    if uri.scheme is Scheme.HF:
        raise InvalidUri(f"{uri} is not mounted into pods: it is fetched")
    return MOUNT_ROOT / uri.scheme / uri.name / uri.path


def _parse_pvc(uri: str, rest: str) -> StorageUri:
    claim, _, path = rest.partition("/")
    if not _DNS_NAME.fullmatch(claim):
        raise InvalidUri(f"{uri!r} names no claim: write pvc://claim/path")
    if ".." in path.split("/"):
        raise InvalidUri(f"{uri!r} leaves its claim: write a path without '..'")
    return StorageUri(Scheme.PVC, claim, path.strip("/"))


def _parse_configmap(uri: str, rest: str) -> StorageUri:
    name, _, key = rest.partition("/")
    if not _DNS_NAME.fullmatch(name) or not _CONFIGMAP_KEY.fullmatch(key) or key in {".", ".."}:
        raise InvalidUri(f"{uri!r} names no key of a ConfigMap: write configmap://name/key")
    return StorageUri(Scheme.CONFIGMAP, name, key)


def _parse_hf(uri: str, rest: str) -> StorageUri:
    match = _HF.fullmatch(rest)
    if match is None or ".." in rest:
        raise InvalidUri(f"{uri!r} names no repository: write hf://org/repo@revision")
    return StorageUri(Scheme.HF, match["repo"], match["path"].strip("/"), match["revision"])
