"""Storage: files behind URIs, written whole or not at all."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import huggingface_hub
import pytest

from tunesmith_contract.uris import StorageUri, parse_uri
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.models.inspection import model_revision
from tunesmith_data.pod.storage import Storage, place_folder, write_atomically
from tunesmith_storage.errors import StorageUnavailable
from tunesmith_storage.remote import Entry

COMMIT = "c" * 40


def test_a_hub_is_asked_for_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models--o--r/snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    download = mock.create_autospec(huggingface_hub.snapshot_download, return_value=str(folder))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    uri = "hf://o/r@main"
    assert Storage().model_folder(uri, weights=False) == folder
    assert "*.safetensors" not in download.call_args.kwargs["allow_patterns"]
    assert Storage().model_folder(uri, weights=True) == folder
    assert "*.safetensors" in download.call_args.kwargs["allow_patterns"]
    assert download.call_args.args == ("o/r",)
    assert (download.call_args.kwargs["revision"], download.call_args.kwargs["token"]) == ("main", "hf_x")
    assert model_revision(uri, folder) == COMMIT


def test_a_data_set_of_a_hub_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}")
    download = mock.create_autospec(huggingface_hub.hf_hub_download, return_value=str(file))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Storage().dataset_file("hf://o/r/a/rows.jsonl@v1") == file
    assert download.call_args.args == ("o/r", "a/rows.jsonl")
    assert download.call_args.kwargs["repo_type"] == "dataset"
    with pytest.raises(UserError, match="names no file"):
        Storage().dataset_file("hf://o/r@v1")


class Folder:
    """What a hub lists and gives, of one data set."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.opened: list[StorageUri] = []

    def open(self, uri: StorageUri, roles: object, secrets: Path, *, holds_rows: bool) -> "Folder":
        assert holds_rows
        self.uri = uri
        self.opened.append(uri)
        return self

    def entries(self) -> dict[str, Entry]:
        below = f"{self.uri.path}/" if self.uri.path else ""
        return {
            name.removeprefix(below): Entry(name.removeprefix(below), len(data), data.hex())
            for name, data in self.files.items()
            if name.startswith(below)
        }

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        below = f"{self.uri.path}/" if self.uri.path else ""
        yield self.files[below + entry.path][offset:]


def test_a_folder_or_pattern_of_a_hub_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Folder(
        {
            "README.md": b"#",
            "all.jsonl": b"all",
            "data/test-0.parquet": b"t",
            "data/train-0.parquet": b"0",
            "data/train-1.parquet": b"1",
            "data/manifest.json": b"not an artifact's",
            "data/old/train-2.parquet": b"2",
        }
    )
    monkeypatch.setattr("tunesmith_data.pod.storage.open_remote", hub.open)
    storage = Storage(scratch=tmp_path)

    def read(uri: str) -> dict[str, bytes]:
        return {file.name: file.path.read_bytes() for file in storage.dataset_files(uri)}

    assert read("hf://o/r") == {"all.jsonl": b"all"}
    train = {"train-0.parquet": b"0", "train-1.parquet": b"1"}
    assert read("hf://o/r/data/train-*.parquet@refs/convert/parquet") == train
    assert read("hf://o/r/data/*.parquet") == {"test-0.parquet": b"t", **train}
    assert set(read("hf://o/r/data/@v1")) == {"test-0.parquet", *train}
    assert [uri.revision for uri in hub.opened] == [None, "refs/convert/parquet", None, "v1"]
    with pytest.raises(DataError, match=r"train/ has no data files \(nothing is there\)"):
        read("hf://o/r/train/")
    with pytest.raises(DataError, match=r"r/x\* has no data files \(there are README.md, all.jsonl, data/\)"):
        read("hf://o/r/x*")


def test_paths_of_mounted_uris(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert storage.path(parse_uri("pvc://claim/a/b")) == tmp_path / "pvc/claim/a/b"
    assert storage.path(parse_uri("configmap://name/key")) == tmp_path / "configmap/name/key"
    (tmp_path / "pvc/claim").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder"):
        storage.dataset_file("pvc://claim")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a/file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", mock.Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [child.name for child in path.parent.iterdir()] == ["file"]


def test_a_placed_folder_is_never_overwritten(tmp_path: Path) -> None:
    final = tmp_path / "sha256/x"

    def stage(text: str) -> Path:
        staged = tmp_path / "staged"
        staged.mkdir()
        (staged / "file").write_text(text)
        return staged

    place_folder(stage("one"), final)
    place_folder(stage("one"), final)
    assert not (tmp_path / "staged").exists()
    with pytest.raises(StorageUnavailable, match="holds other files"):
        place_folder(stage("two"), final)
    assert (final / "file").read_text() == "one"
