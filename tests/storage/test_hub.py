"""Hugging Face Hub, behind the signatures of its own client: an artifact is one commit, verified afterwards."""

import hashlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from tunesmith_contract.layout import artifact_uri
from tunesmith_contract.uris import parse_uri
from tunesmith_storage import hub, retries
from tunesmith_storage.artifacts import fetch_artifact, publish_artifact
from tunesmith_storage.credentials import Credentials
from tunesmith_storage.errors import NotFound, StorageError, StorageUnavailable
from tunesmith_storage.hub import HubFolder
from tunesmith_storage.stores import open_remote

Artifact = tuple[Path, str]
LARGE = "adapter_model.safetensors"
#: Names as the file system of the library has them: of a model, and of rows.
REPOSITORIES = ("org/repo", "datasets/org/rows")


class Hub:
    """What a repository holds, behind the client's own signatures."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: list[list[str]] = []
        self.api = mock.create_autospec(huggingface_hub.HfApi, instance=True)
        self.api.list_repo_tree.side_effect = self.list
        self.api.create_commit.side_effect = self.commit
        self.files = mock.create_autospec(huggingface_hub.HfFileSystem, instance=True)
        self.files.open.side_effect = self.open
        self.asked: set[str] = set()

    def open(self, path: str, mode: str, *, revision: str | None, **options: object) -> BufferedReader:
        _, _, name = path.partition(f"{REPOSITORIES[path.startswith('datasets/')]}/")
        return (self.root / name).open("rb")

    def list(
        self, repo: str, folder: str | None, *, recursive: bool, revision: str | None, repo_type: str
    ) -> Any:
        self.asked.add(repo_type)
        files = [path for path in (self.root / (folder or "")).rglob("*") if path.is_file()]
        if not files:
            raise EntryNotFoundError("404")
        return [self.describe(path) for path in files]

    def describe(self, path: Path) -> RepoFile:
        data = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        lfs = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 1}
        name = path.relative_to(self.root).as_posix()
        large = {"lfs": lfs} if path.name == LARGE else {}
        build: Callable[..., RepoFile] = RepoFile
        return build(path=name, size=len(data), oid=blob, **large)

    def commit(self, repo: str, operations: Any, *, commit_message: str, revision: str | None) -> None:
        self.commits.append([operation.path_in_repo for operation in operations])
        for operation in operations:
            target = self.root / operation.path_in_repo
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(operation.path_or_fileobj).read_bytes())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    repository = Hub(tmp_path / "repository")
    monkeypatch.setattr(hub, "HfApi", mock.Mock(return_value=repository.api))
    monkeypatch.setattr(hub, "HfFileSystem", mock.Mock(return_value=repository.files))
    return repository


def open_folder(digest: str, tmp_path: Path) -> HubFolder:
    return HubFolder(
        artifact_uri(parse_uri("hf://org/repo/team@main"), digest), Credentials("output", tmp_path / "no")
    )


def test_rows_are_looked_for_among_data_sets(repository: Hub, tmp_path: Path) -> None:
    (repository.root / "data").mkdir(parents=True)
    (repository.root / "data/a.jsonl").write_bytes(b"rows")
    (repository.root / "README.md").write_bytes(b"about")
    uri = parse_uri("hf://org/rows/data/@main")
    folder = open_remote(uri, ("train",), tmp_path / "no", holds_rows=True)
    (entry,) = folder.entries().values()
    assert (entry.path, b"".join(folder.read(entry))) == ("a.jsonl", b"rows")
    assert repository.asked == {"dataset"}


def test_an_artifact_is_one_commit_and_comes_back(
    repository: Hub, artifact: Artifact, tmp_path: Path
) -> None:
    folder, digest = artifact
    publish_artifact(open_folder(digest, tmp_path), folder)
    (committed,) = repository.commits
    assert all(name.startswith(f"team/sha256/{digest.removeprefix('sha256:')}/") for name in committed)
    assert len(committed) == 5
    publish_artifact(open_folder(digest, tmp_path), folder)
    assert len(repository.commits) == 1
    fetched = fetch_artifact(open_folder(digest, tmp_path), digest, tmp_path / "fetched")
    assert (fetched / LARGE).read_bytes() == (folder / LARGE).read_bytes()


def test_a_damaged_file_is_detected(repository: Hub, artifact: Artifact, tmp_path: Path) -> None:
    folder, digest = artifact
    publish_artifact(open_folder(digest, tmp_path), folder)
    for name in (LARGE, "README.md"):
        (harmed,) = repository.root.rglob(name)
        data = harmed.read_bytes()
        harmed.write_bytes(bytes(reversed(data)))
        with pytest.raises(StorageUnavailable, match="other bytes"):
            publish_artifact(open_folder(digest, tmp_path), folder)
        harmed.write_bytes(data)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RepositoryNotFoundError, 404, "RepositoryNotFound"),
        (HfHubHTTPError, 401, "AccessDenied"),
        (HfHubHTTPError, 403, "AccessDenied"),
        (HfHubHTTPError, 503, "StorageUnavailable"),
    ],
)
def test_refusals(
    repository: Hub, tmp_path: Path, error: type[HfHubHTTPError], status: int, reason: str
) -> None:
    request = httpx2.Request("GET", "https://hub.example/api")
    answer = httpx2.Response(status, request=request)
    repository.api.list_repo_tree.side_effect = error("no", response=answer)
    with pytest.raises(StorageError) as caught:
        open_folder("sha256:x", tmp_path).entries()
    assert caught.value.reason == reason
    assert isinstance(caught.value, NotFound) == (status == 404)


def test_a_connection_that_breaks_is_tried_again(
    repository: Hub, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0)
    folder, digest = artifact
    publish_artifact(open_folder(digest, tmp_path), folder)
    broken, whole = httpx2.ReadError("reset"), repository.open
    attempts = iter([broken, broken])

    def flaky(path: str, mode: str, **options: Any) -> BufferedReader:
        if path.endswith(LARGE) and (error := next(attempts, None)):
            raise error
        return whole(path, mode, **options)

    repository.files.open.side_effect = flaky
    fetched = fetch_artifact(open_folder(digest, tmp_path), digest, tmp_path / "fetched")
    assert (fetched / LARGE).read_bytes() == (folder / LARGE).read_bytes()


def test_the_token_is_the_secrets_then_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "from-environment")
    assert hub.find_token(Credentials("output", tmp_path / "no")) == "from-environment"
    (tmp_path / "token").write_text("from-secret\n")
    assert hub.find_token(Credentials("output", tmp_path)) == "from-secret"
