"""Behaviour that all stores share: digests verified, interrupted transfers continued, nothing overwritten."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers.azure_storage import AzureAccount
from servers.storage_servers import BUCKET, Registry, S3Server

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.layout import MANIFEST_FILE, artifact_uri
from tunesmith_contract.uris import StorageUri, parse_uri
from tunesmith_storage.artifacts import fetch_artifact, publish_artifact
from tunesmith_storage.download import fetch_entry
from tunesmith_storage.errors import UNAVAILABLE, NotFound, StorageError, StorageRefused, StorageUnavailable
from tunesmith_storage.files import file_digest
from tunesmith_storage.remote import Entry, Remote
from tunesmith_storage.stores import open_remote

Artifact = tuple[Path, str]


class Killed(BaseException):
    """The pod ends here."""


class Store(NamedTuple):
    """One kind of store: where artifacts go, and the Secrets that open it."""

    output: StorageUri
    secrets: Path

    def open(self, digest: str) -> Remote:
        return open_remote(artifact_uri(self.output, digest), ["output"], self.secrets)


@pytest.fixture(params=["s3", "oci", "oci-open", "gs", "az"])
def store(request: pytest.FixtureRequest, secrets: Callable[[dict[str, str]], Path]) -> Store:
    name = uuid.uuid4().hex
    match request.param:
        case "s3":
            server: S3Server = request.getfixturevalue("s3")
            return Store(parse_uri(f"s3://{BUCKET}/{name}"), secrets(server.secret()))
        case "oci":
            registry: Registry = request.getfixturevalue("registry")
            keys = request.getfixturevalue("registry_secret")
            return Store(parse_uri(f"oci://{registry.host}/team/{name}"), secrets(keys))
        case "oci-open":
            registry = request.getfixturevalue("open_registry")
            return Store(parse_uri(f"oci://{registry.host}/team/{name}"), secrets({"plainHTTP": "true"}))
        case "az":
            azure: AzureAccount = request.getfixturevalue("azure")
            return Store(parse_uri(f"az://{BUCKET}/{name}"), secrets(azure.secret()))
        case _:
            account = request.getfixturevalue("gcs_account")
            return Store(parse_uri(f"gs://{BUCKET}/{name}"), secrets({"credentials.json": account}))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_published_is_what_is_fetched(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    folder, digest = artifact
    publish_artifact(store.open(digest), folder)
    fetched = fetch_artifact(store.open(digest), digest, tmp_path / "fetched")
    assert contents(fetched) == contents(folder)
    publish_artifact(store.open(digest), folder)
    assert fetch_artifact(store.open(digest), None, tmp_path / "fetched") == fetched


def test_another_digest_is_refused(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    folder, digest = artifact
    publish_artifact(store.open(digest), folder)
    with pytest.raises(StorageRefused, match="write its digest"):
        fetch_artifact(store.open(digest), "sha256:" + "1" * 64, tmp_path)


def test_what_is_not_there_is_said(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        fetch_artifact(store.open(artifact[1]), artifact[1], tmp_path)


def sending(remote: Any) -> str:
    """The method that sends one file."""
    return "upload" if hasattr(remote, "upload") else "_push"


@pytest.mark.parametrize("sent", range(5))
def test_an_interrupted_upload_goes_on_where_it_stopped(
    store: Store, artifact: Artifact, tmp_path: Path, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of the five files: nothing counts until all are there, and none is sent twice."""
    folder, digest = artifact
    remote: Any = store.open(digest)
    monkeypatch.setattr("tunesmith_storage.download.CONCURRENCY", 1)
    send = getattr(type(remote), sending(remote))
    done: list[object] = []

    def interrupted(self: Any, *args: Any, limit: int) -> None:
        if len(done) == limit:
            raise Killed
        send(self, *args)
        done.append(args[0])

    with monkeypatch.context() as patch:
        patch.setattr(type(remote), sending(remote), lambda *args: interrupted(*args, limit=sent))
        with pytest.raises(Killed):
            publish_artifact(remote, folder)
    with pytest.raises(NotFound):
        fetch_artifact(store.open(digest), digest, tmp_path / "early")
    before = stored(store, digest)
    publish_artifact(store.open(digest), folder)
    after = stored(store, digest)
    assert len(done) == sent
    assert before.items() <= after.items()
    fetched = fetch_artifact(store.open(digest), digest, tmp_path / "fetched")
    assert contents(fetched) == contents(folder)


def stored(store: Store, digest: str) -> dict[str, Any]:
    """What a bucket holds, with the time of each upload; a registry is asked by its own test."""
    remote: Any = store.open(digest)
    if not hasattr(remote, "upload"):
        return {}
    import obstore

    listed = obstore.list(remote._store, prefix=remote.uri.path).collect()
    return {meta["path"]: (meta["e_tag"], meta["last_modified"]) for meta in listed}


@pytest.mark.parametrize("failure", [Killed(), StorageUnavailable(UNAVAILABLE, "the line went dead")])
def test_a_download_goes_on_where_it_stopped(
    store: Store, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Killed, or cut off for a moment: the first by the next pod, the second by the same."""
    monkeypatch.setattr("tunesmith_storage.retries.FIRST_PAUSE_SECONDS", 0)
    folder, digest = artifact
    publish_artifact(store.open(digest), folder)
    remote: Any = store.open(digest)
    name = "adapter_model.safetensors"
    entry = remote.entries()[name]
    offsets: list[int] = []
    read = type(remote).read

    def torn(self: Any, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        offsets.append(offset)
        data = b"".join(read(self, entry, offset))
        yield data[:1000]
        if offset == 0:
            raise failure
        yield data[1000:]

    target = tmp_path / "target" / name
    with monkeypatch.context() as patch:
        patch.setattr(type(remote), "read", torn)
        if isinstance(failure, Killed):
            with pytest.raises(Killed):
                fetch_entry(remote, entry, target, file_digest(folder / name))
            assert not target.exists()
        fetch_entry(remote, entry, target, file_digest(folder / name))
    assert offsets == [0, 1000]
    assert target.read_bytes() == (folder / name).read_bytes()


def test_files_that_are_there_are_not_fetched_again(
    store: Store, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, digest = artifact
    publish_artifact(store.open(digest), folder)
    fetched = fetch_artifact(store.open(digest), digest, tmp_path)
    # As if the pod had been killed with one file to go.
    (fetched / MANIFEST_FILE).unlink()
    (fetched / "adapter_config.json").write_bytes(b"torn")
    remote: Any = store.open(digest)
    read: Callable[[Remote, Entry, int], Iterator[bytes]] = type(remote).read
    seen: list[str] = []

    def watched(self: Any, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        seen.append(entry.path)
        return read(self, entry, offset)

    monkeypatch.setattr(type(remote), "read", watched)
    assert contents(fetch_artifact(remote, digest, tmp_path)) == contents(folder)
    assert sorted(seen) == ["adapter_config.json", MANIFEST_FILE]


class TestS3:
    """What a bucket alone can show: its objects are files."""

    @pytest.fixture
    def store(self, s3: S3Server, secrets: Callable[[dict[str, str]], Path], bucket_uri: str) -> Store:
        return Store(parse_uri(bucket_uri), secrets(s3.secret()))

    def object(self, s3: S3Server, store: Store, digest: str, name: str) -> Path:
        uri = artifact_uri(store.output, digest)
        return s3.root / uri.name / uri.path / name

    def test_the_layout_is_the_documented_one(self, s3: S3Server, store: Store, artifact: Artifact) -> None:
        folder, digest = artifact
        publish_artifact(store.open(digest), folder)
        place = s3.root / BUCKET / store.output.path / "sha256" / digest.removeprefix("sha256:")
        assert contents(place) == contents(folder)

    @pytest.mark.parametrize("harm", [b"", b"x"])
    def test_a_damaged_object_is_detected(
        self, s3: S3Server, store: Store, artifact: Artifact, tmp_path: Path, harm: bytes
    ) -> None:
        folder, digest = artifact
        publish_artifact(store.open(digest), folder)
        harmed = self.object(s3, store, digest, "adapter_model.safetensors")
        harmed.write_bytes(harmed.read_bytes()[:-1] + harm)
        with pytest.raises(StorageUnavailable, match=r"adapter_model\.safetensors") as caught:
            fetch_artifact(store.open(digest), digest, tmp_path)
        assert caught.value.reason == "ArtifactDamaged"
        with pytest.raises(StorageUnavailable, match="move the folder away"):
            publish_artifact(store.open(digest), folder)
        assert harmed.read_bytes()[-1:] != (folder / "adapter_model.safetensors").read_bytes()[-1:]

    def test_bytes_that_change_on_their_way_are_detected(
        self, store: Store, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tunesmith_storage.buckets import Bucket

        folder, digest = artifact
        upload = Bucket.upload
        monkeypatch.setattr(Bucket, "upload", lambda self, path, _: upload(self, path, b"other bytes"))
        with pytest.raises(StorageUnavailable, match="other bytes"):
            publish_artifact(store.open(digest), folder)
        assert MANIFEST_FILE not in store.open(digest).entries()


def test_a_registry_is_not_sent_a_blob_twice(
    registry: Registry,
    registry_secret: dict[str, str],
    secrets: Callable[[dict[str, str]], Path],
    artifact: Artifact,
) -> None:
    folder, digest = artifact
    store = Store(parse_uri(f"oci://{registry.host}/{uuid.uuid4().hex}"), secrets(registry_secret))
    before = registry.uploads()
    publish_artifact(store.open(digest), folder)
    assert registry.uploads() == before + len(contents(folder))
    publish_artifact(store.open(digest), folder)
    assert registry.uploads() == before + len(contents(folder))


def test_a_damaged_layer_is_detected(
    registry: Registry,
    registry_secret: dict[str, str],
    secrets: Callable[[dict[str, str]], Path],
    artifact: Artifact,
    tmp_path: Path,
) -> None:
    folder, digest = artifact
    store = Store(parse_uri(f"oci://{registry.host}/{uuid.uuid4().hex}"), secrets(registry_secret))
    publish_artifact(store.open(digest), folder)
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    blob = registry.blob(next(file.sha256 for file in manifest.files if file.path == "README.md"))
    blob.write_bytes(bytes(reversed(blob.read_bytes())))
    for use in (
        partial(publish_artifact, folder=folder),
        partial(fetch_artifact, digest=digest, root=tmp_path),
    ):
        with pytest.raises(StorageError) as caught:
            use(store.open(digest))
        assert caught.value.reason == "ArtifactDamaged"
