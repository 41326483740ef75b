"""Base models, data sets and work files, which have no manifest."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.storage_servers import BUCKET, S3Server

from tunesmith_contract.uris import parse_uri
from tunesmith_storage.artifacts import publish_artifact
from tunesmith_storage.errors import NotFound, StorageRefused, StorageUnavailable
from tunesmith_storage.mirror import Mirror
from tunesmith_storage.remote import Remote
from tunesmith_storage.stores import open_remote
from tunesmith_storage.trees import fetch_file, fetch_tree

PATTERNS = ["*.json", "*.safetensors"]


def safetensors(size: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


class Folder:
    """A folder of the bucket, and how it is opened."""

    def __init__(self, s3: S3Server, uri: str, secrets: Path) -> None:
        self.uri, self.secrets = parse_uri(uri), secrets
        self.path = s3.root / BUCKET / self.uri.path

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def open(self, *path: str) -> Remote:
        return open_remote(self.uri.join(*path), ["output"], self.secrets)

    def mirror(self, root: Path) -> Mirror:
        return Mirror(self.uri, root, ["output"], self.secrets)


@pytest.fixture
def folder(s3: S3Server, bucket_uri: str, secrets: Callable[[dict[str, str]], Path]) -> Folder:
    return Folder(s3, bucket_uri, secrets(s3.secret()))


def test_a_model_is_fetched_whole_or_in_outline(folder: Folder, tmp_path: Path) -> None:
    weights = safetensors(3_000_000)
    folder.write("config.json", b"{}")
    folder.write("model.safetensors", weights)
    folder.write("original/params.json", b"{}")
    folder.write("README.md", b"no")
    whole = fetch_tree(folder.open(), tmp_path, PATTERNS)
    outline = fetch_tree(folder.open(), tmp_path, PATTERNS, outlines=True)
    assert sorted(path.name for path in whole.iterdir()) == ["config.json", "model.safetensors"]
    assert (whole / "model.safetensors").read_bytes() == weights
    header = (outline / "model.safetensors").read_bytes()
    assert weights.startswith(header)
    assert len(header) == 8 + struct.unpack("<Q", weights[:8])[0]
    assert whole.name == outline.name


def test_an_artifact_is_a_model_whose_revision_is_its_digest(
    folder: Folder, artifact: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = artifact
    publish_artifact(folder.open(), path)
    whole = fetch_tree(folder.open(), tmp_path, ["*.json", "adapter_model.safetensors"])
    assert whole.name == digest.replace(":", "-")
    folder.write("adapter_config.json", (path / "adapter_config.json").read_bytes()[::-1])
    with pytest.raises(StorageUnavailable, match=r"adapter_config\.json"):
        fetch_tree(folder.open(), tmp_path / "again", PATTERNS)


def test_the_revision_changes_with_the_bytes(folder: Folder, tmp_path: Path) -> None:
    folder.write("config.json", b"{}")
    first = fetch_tree(folder.open(), tmp_path, PATTERNS)
    assert fetch_tree(folder.open(), tmp_path, PATTERNS) == first
    Mirror(folder.uri, tmp_path / "new", ["output"], folder.secrets).write("config.json", b"[]")
    second = fetch_tree(folder.open(), tmp_path, PATTERNS)
    assert first.name != second.name
    assert (second / "config.json").read_bytes() == b"[]"


def test_a_file_goes_by_its_own_uri(folder: Folder, tmp_path: Path) -> None:
    folder.write("rows/train.jsonl", b"{}\n" * 10)
    file = fetch_file(folder.open("rows", "train.jsonl"), tmp_path)
    assert (file.name, file.read_bytes()) == ("train.jsonl", b"{}\n" * 10)
    folder.write("rows/more.jsonl", b"{}")
    with pytest.raises(NotFound, match="is a folder"):
        fetch_file(folder.open("rows"), tmp_path)
    with pytest.raises(NotFound, match="does not exist"):
        fetch_file(folder.open("rows", "other.jsonl"), tmp_path)


def test_an_empty_file_is_a_file(folder: Folder, tmp_path: Path) -> None:
    folder.write("empty.jsonl", b"")
    assert fetch_file(folder.open("empty.jsonl"), tmp_path).read_bytes() == b""


def test_a_mirror_brings_a_folder_to_another_pod(folder: Folder, tmp_path: Path) -> None:
    here, there = folder.mirror(tmp_path / "here"), folder.mirror(tmp_path / "there")
    for name in ("a", "b/c"):
        (here.root / "prepared" / name).parent.mkdir(parents=True, exist_ok=True)
        (here.root / "prepared" / name).write_text(name)
    here.push("prepared")
    there.pull("prepared")
    assert (there.root / "prepared/b/c").read_text() == "b/c"
    assert there.read("prepared/a") == b"a"
    there.delete("prepared")
    assert here.entries() == {}
    assert here.read("prepared/a") is None


def test_the_declaring_file_comes_last_and_goes_first(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_storage.buckets import Bucket

    mirror = folder.mirror(tmp_path / "here")
    checkpoint = mirror.root / "checkpoints/checkpoint-1"
    checkpoint.mkdir(parents=True)
    for name in ("commit.json", "a", "z"):
        (checkpoint / name).write_text(name)
    sent: list[str] = []
    upload = Bucket.upload

    def record(self: Bucket, path: str, file: Path | bytes) -> None:
        upload(self, path, file)
        sent.append(Path(path).name)

    monkeypatch.setattr(Bucket, "upload", record)
    mirror.push("checkpoints/checkpoint-1", last="commit.json")
    assert sent[-1] == "commit.json"
    assert sorted(sent) == ["a", "commit.json", "z"]
    mirror.push("checkpoints/checkpoint-1", last="commit.json")
    assert len(sent) == 3
    removed: list[list[str]] = []
    monkeypatch.setattr(
        Bucket, "delete", lambda self, paths: removed.append([Path(path).name for path in paths])
    )
    mirror.delete("checkpoints", first=("commit.json",))
    assert removed == [["commit.json"], ["a", "z"]]


def test_work_files_need_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(StorageRefused, match="pvc://, s3://, gs:// or az://"):
        Mirror(parse_uri("oci://registry.example/a"), tmp_path, ["output"], tmp_path)
