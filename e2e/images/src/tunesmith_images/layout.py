"""OCI layout shared by several images, and archives of single images from it.

A layer that images share is there once.
An archive may leave out blobs that the receiver has; containerd then takes them from its own store.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

_REF = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_MARKER = b'{"imageLayoutVersion":"1.0.0"}'

Descriptor = dict[str, Any]


def blob_path(layout: Path, digest: str) -> Path:
    """The file of the blob `digest` (``sha256:...``)."""
    return layout / "blobs" / digest.replace(":", "/")


def find_manifest(layout: Path, ref: str) -> Descriptor | None:
    """The descriptor of the image `ref`, or None."""
    return next((entry for entry in _entries(layout) if entry["annotations"].get(_REF) == ref), None)


def blobs_of(layout: Path, manifest: Descriptor) -> list[str]:
    """The digests of everything an image consists of: manifest, config, layers."""
    content = json.loads(blob_path(layout, manifest["digest"]).read_bytes())
    layers = [layer["digest"] for layer in content["layers"]]
    return [manifest["digest"], content["config"]["digest"], *layers]


def is_complete(layout: Path, ref: str) -> bool:
    """True if the image is in the layout with all of its blobs."""
    manifest = find_manifest(layout, ref)
    if manifest is None or not blob_path(layout, manifest["digest"]).exists():
        return False
    return all(blob_path(layout, digest).exists() for digest in blobs_of(layout, manifest))


def write_archive(layout: Path, ref: str, stream: IO[bytes], skip: Iterable[str] = ()) -> None:
    """Write the image `ref` as an OCI archive, without the blobs in `skip`.

    Raises:
        KeyError: the layout does not have the image.
    """
    manifest = find_manifest(layout, ref)
    if manifest is None:
        raise KeyError(ref)
    left_out = set(skip) - {manifest["digest"]}
    entry = {**manifest, "annotations": {_REF: ref.rpartition(":")[2], _CONTAINERD_NAME: ref}}
    index = {"schemaVersion": 2, "manifests": [entry]}
    with tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20) as archive:
        _add(archive, "oci-layout", _MARKER)
        _add(archive, "index.json", json.dumps(index).encode())
        for digest in dict.fromkeys(blobs_of(layout, manifest)):
            if digest not in left_out:
                archive.add(blob_path(layout, digest), f"blobs/{digest.replace(':', '/')}")


def remove_image(layout: Path, ref: str) -> None:
    """Take the image `ref` out of the layout, with the blobs that no other image has."""
    entries = [entry for entry in _entries(layout) if entry["annotations"].get(_REF) != ref]
    index = layout / "index.json"
    temporary = index.with_suffix(".new")
    temporary.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    temporary.rename(index)
    used = {digest for entry in entries for digest in blobs_of(layout, entry)}
    for file in list((layout / "blobs").rglob("*")):
        if file.is_file() and f"{file.parent.name}:{file.name}" not in used:
            file.unlink()


def make_layout(layout: Path) -> None:
    """An empty layout, unless there is one; a damaged one is begun anew."""
    if layout.exists() and not (layout / "index.json").exists():
        shutil.rmtree(layout)
    layout.mkdir(parents=True, exist_ok=True)


def _entries(layout: Path) -> list[Descriptor]:
    index = layout / "index.json"
    if not index.exists():
        return []
    return [{"annotations": {}, **entry} for entry in json.loads(index.read_bytes())["manifests"]]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
