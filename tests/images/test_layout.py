"""One layout holds several images and gives each out by itself."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tunesmith_images.layout import blobs_of, find_manifest, is_complete, remove_image, write_archive


def put(layout: Path, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    path = layout / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def add_image(layout: Path, ref: str, *layers: bytes) -> None:
    config = put(layout, f"config of {ref}".encode())
    manifest = put(
        layout, json.dumps({"config": config, "layers": [put(layout, x) for x in layers]}).encode()
    )
    index = layout / "index.json"
    entries = json.loads(index.read_text())["manifests"] if index.exists() else []
    entries.append({**manifest, "annotations": {"org.opencontainers.image.ref.name": ref}})
    index.write_text(json.dumps({"manifests": entries}))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    add_image(tmp_path, "registry/one:1", b"shared", b"only one")
    add_image(tmp_path, "registry/two:2", b"shared", b"only two")
    return tmp_path


def read(layout: Path, ref: str, skip: tuple[str, ...] = ()) -> dict[str, bytes]:
    stream = io.BytesIO()
    write_archive(layout, ref, stream, skip)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file}


def test_an_archive_holds_one_image_under_its_full_name(layout: Path) -> None:
    files = read(layout, "registry/one:1")
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "registry/one:1"
    assert {b"shared", b"only one"} < set(files.values())
    assert b"only two" not in files.values()


def test_an_archive_leaves_out_what_the_receiver_has(layout: Path) -> None:
    manifest = find_manifest(layout, "registry/two:2")
    assert manifest
    files = read(layout, "registry/two:2", tuple(blobs_of(layout, manifest)))
    assert set(files) == {"oci-layout", "index.json", f"blobs/{manifest['digest'].replace(':', '/')}"}


def test_removing_an_image_keeps_what_others_share(layout: Path) -> None:
    remove_image(layout, "registry/one:1")
    assert not is_complete(layout, "registry/one:1")
    assert is_complete(layout, "registry/two:2")
    contents = {file.read_bytes() for file in (layout / "blobs").rglob("*") if file.is_file()}
    assert b"shared" in contents
    assert b"only one" not in contents


def test_an_image_without_all_its_blobs_is_not_complete(layout: Path) -> None:
    manifest = find_manifest(layout, "registry/one:1")
    assert manifest
    digest = blobs_of(layout, manifest)[-1]
    (layout / "blobs" / digest.replace(":", "/")).unlink()
    assert not is_complete(layout, "registry/one:1")
    with pytest.raises(KeyError, match="registry/three:3"):
        write_archive(layout, "registry/three:3", io.BytesIO())
