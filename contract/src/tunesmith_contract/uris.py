"""Storage URIs, and their mount paths in pods.

``pvc://claim/path`` and ``configmap://name/key`` become volumes, mounted under ``MOUNT_ROOT`` by the operator and read
there by trainer and agent. The rest is fetched and stored by the pods: ``hf://org/repo@revision``, ``s3://bucket/key``,
``gs://bucket/key``, ``az://container/key`` and ``oci://registry/repository``, with ``@sha256:…`` where one artifact is
meant.
"""

import re
from enum import StrEnum
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

MOUNT_ROOT = PurePosixPath("/mnt/tunesmith")

_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_CONFIGMAP_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_HF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<path>(/[\w.*-]+)*/?)(@(?P<revision>[\w./-]+))?"
)
_BUCKET = re.compile(r"[a-z0-9]([-a-z0-9._]{1,61})[a-z0-9]")
_OCI = re.compile(
    r"(?P<name>[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+)"
    r"(:(?P<tag>\w[\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Scheme(StrEnum):
    """The kinds of storage a URI may name."""

    PVC = "pvc"
    CONFIGMAP = "configmap"
    HF = "hf"
    S3 = "s3"
    GS = "gs"
    AZ = "az"
    OCI = "oci"


#: Schemes that the operator mounts.
MOUNTED = frozenset({Scheme.PVC, Scheme.CONFIGMAP})

#: Schemes of object stores; Azure calls a bucket a container.
BUCKETS = frozenset({Scheme.S3, Scheme.GS, Scheme.AZ})

#: Schemes of stores in which work files lie; registries and hubs keep none.
KEEPS_WORK = BUCKETS | {Scheme.PVC}


class InvalidUri(ValueError):
    """The URI names no storage; the message says what to write instead."""


class StorageUri(NamedTuple):
    """A parsed storage URI.

    Attributes:
        scheme: the kind of storage.
        name: the claim, the ConfigMap, ``org/repo``, the bucket or container, or ``registry/repository``.
        path: the path in the claim, repository or bucket without slashes at its ends, or the ConfigMap's key; may be
            empty, and is for ``oci://``. Where rows are named its last part may be a pattern: ``rows-*.jsonl``.
        revision: the branch, tag or commit of an ``hf://`` URI, the tag or digest of an ``oci://`` URI, else None.
    """

    scheme: Scheme
    name: str
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        tagged = self.scheme is Scheme.OCI and self.revision and not self.revision.startswith("sha256:")
        revision = f"{':' if tagged else '@'}{self.revision}" if self.revision else ""
        return f"{self.scheme}://{self.name}{path}{revision}"

    def join(self, *parts: str) -> "StorageUri":
        """URI of a path below this one; an ``oci://`` repository contains only artifacts."""
        return self._replace(path="/".join(filter(None, (self.path.rstrip("/"), *parts))))


@lru_cache(maxsize=1024)
def parse_uri(uri: str) -> StorageUri:
    """Parse a storage URI; the same ones come again and again.

    Raises:
        InvalidUri: unknown scheme, missing part, or a path that leaves its volume.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in set(Scheme):
        forms = (
            "pvc://claim/path, configmap://name/key, hf://org/repo@revision, s3://bucket/key, gs://bucket/key, "
            "az://container/key or oci://registry/repository"
        )
        raise InvalidUri(f"{uri!r} is not a storage URI: write {forms}")
    match Scheme(scheme):
        case Scheme.PVC:
            return _parse_pvc(uri, rest)
        case Scheme.CONFIGMAP:
            return _parse_configmap(uri, rest)
        case Scheme.HF:
            return _parse_hf(uri, rest)
        case Scheme.S3 | Scheme.GS | Scheme.AZ:
            return _parse_bucket(uri, Scheme(scheme), rest)
        case Scheme.OCI:
            return _parse_oci(uri, rest)


def parse_uri_or_none(uri: str) -> StorageUri | None:
    """Parse a storage URI; None where it is not one."""
    try:
        return parse_uri(uri)
    except InvalidUri:
        return None


def names_one_file(uri: str) -> bool:
    """True for a URI of rows that names one file, not a pattern, a folder (by a slash at its end) or a repository.

    Raises:
        InvalidUri: as ``parse_uri``.
    """
    parsed = parse_uri(uri)
    written = uri.partition("@")[0] if parsed.scheme is Scheme.HF else uri
    return bool(parsed.path) and not written.endswith("/") and "*" not in parsed.path


def mount_path(uri: StorageUri) -> PurePosixPath:
    """Path in a pod of a ``pvc://`` or ``configmap://`` URI.

    Raises:
        InvalidUri: the rest is fetched, not mounted.
    """
    if uri.scheme not in MOUNTED:
        raise InvalidUri(f"{uri} is not mounted into pods: it is fetched")
    return MOUNT_ROOT / uri.scheme / uri.name / uri.path


def _parse_pvc(uri: str, rest: str) -> StorageUri:
    claim, _, path = rest.partition("/")
    if not _DNS_NAME.fullmatch(claim):
        raise InvalidUri(f"{uri!r} names no claim: write pvc://claim/path")
    if ".." in path.split("/"):
        raise InvalidUri(f"{uri!r} leaves its claim: write a path without '..'")
    return StorageUri(Scheme.PVC, claim, _one_folder(uri, path))


def _parse_configmap(uri: str, rest: str) -> StorageUri:
    name, _, key = rest.partition("/")
    if not _DNS_NAME.fullmatch(name) or not _CONFIGMAP_KEY.fullmatch(key) or key in {".", ".."}:
        raise InvalidUri(f"{uri!r} names no key of a ConfigMap: write configmap://name/key")
    return StorageUri(Scheme.CONFIGMAP, name, key)


def _parse_hf(uri: str, rest: str) -> StorageUri:
    match = _HF.fullmatch(rest)
    if match is None or ".." in rest:
        raise InvalidUri(f"{uri!r} names no repository: write hf://org/repo@revision")
    return StorageUri(Scheme.HF, match["repo"], _one_folder(uri, match["path"]), match["revision"])


def _parse_bucket(uri: str, scheme: Scheme, rest: str) -> StorageUri:
    bucket, _, path = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidUri(f"{uri!r} names no bucket: write {scheme}://bucket/key")
    if ".." in path.split("/"):
        raise InvalidUri(f"{uri!r} leaves its folder: write a key without '..'")
    return StorageUri(scheme, bucket, _one_folder(uri, path))


def _one_folder(uri: str, path: str) -> str:
    """The path without slashes at its ends."""
    if "*" in path.rpartition("/")[0]:
        raise InvalidUri(f"{uri!r} is a pattern of folders: write * in the last part only")
    return path.strip("/")


def _parse_oci(uri: str, rest: str) -> StorageUri:
    match = _OCI.fullmatch(rest)
    if match is None:
        raise InvalidUri(f"{uri!r} names no repository: write oci://registry/repository, in lower case")
    return StorageUri(Scheme.OCI, match["name"], "", match["digest"] or match["tag"])
