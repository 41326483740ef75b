"""Finished work is taken over only where the pod finds it as it was."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_contract.artifact import File, Lineage, Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV, MANIFEST_FILE
from tunesmith_contract.report import Artifact
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import StorageUri
from tunesmith_data.pod.finished import holds_artifacts, holds_file, read_finished
from tunesmith_data.pod.secret_roles import Roles
from tunesmith_data.pod.storage import Storage
from tunesmith_storage.errors import StorageUnavailable
from tunesmith_storage.remote import Entry, Remote

WEIGHTS = b"weights"


def store_artifact(world: World) -> ArtifactSource:
    """An artifact with one file."""
    file = File(path="adapter_model.safetensors", size_bytes=len(WEIGHTS), sha256=sha256_digest(WEIGHTS))
    lineage = Lineage(
        namespace="ns",
        job="run",
        uid="earlier",
        base_model="pvc://models/llama",
        base_model_revision="r1",
        dataset_digest=sha256_digest(b"rows"),
        image="trainer",
        parameters={},
        versions={},
    )
    manifest = Manifest(files=(file,), lineage=lineage, probes=())
    folder = world.output / "sha256" / manifest.digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / file.path).write_bytes(WEIGHTS)
    (folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    return ArtifactSource(uri=f"pvc://out/sha256/{folder.name}", digest=manifest.digest)


def folder_of(world: World, source: ArtifactSource) -> Path:
    return world.output / "sha256" / source.digest.removeprefix("sha256:")


def test_preparation_names_the_job_that_trained_on_the_same_rows(world: World, make: RowBuilders) -> None:
    train = world.write_rows("train.jsonl", make.rows(20))
    first = world.prepare(world.prepare_config(train, uid="earlier"))
    assert first.reused is None
    finished = FinishedWork(
        uid="earlier",
        artifacts=(store_artifact(world),),
        dataset_digest=first.dataset.digest,
        base_model_revision=first.model.revision,
    )
    again = world.prepare_config(train, uid="again")
    assert world.prepare(again, finished).reused == "earlier"
    committed = json.loads((world.output / "ns/again/reports/prepare.json").read_text())
    assert committed["reused"] == "earlier", "a pod that takes over says the same"
    other_model = finished.model_copy(update={"base_model_revision": "r2"})
    assert world.prepare(world.prepare_config(train, uid="model"), other_model).reused is None
    world.write_rows("train.jsonl", [*make.rows(20), make.row("one more", "x")])
    assert world.prepare(world.prepare_config(train, uid="rows"), finished).reused is None


def test_an_artifact_counts_only_whole_and_under_its_digest(world: World) -> None:
    source = store_artifact(world)
    finished = FinishedWork(uid="earlier", artifacts=(source,))
    assert holds_artifacts(finished, world.storage)
    assert not holds_artifacts(finished.model_copy(update={"artifacts": ()}), world.storage)
    folder = folder_of(world, source)
    weights, manifest = folder / "adapter_model.safetensors", folder / MANIFEST_FILE
    weights.write_bytes(WEIGHTS[:-1])
    assert not holds_artifacts(finished, world.storage), "cut off"
    weights.unlink()
    assert not holds_artifacts(finished, world.storage), "a file is gone"
    weights.write_bytes(WEIGHTS)
    manifest.write_bytes(manifest.read_bytes().replace(b"earlier", b"another"))
    assert not holds_artifacts(finished, world.storage), "another artifact"
    manifest.unlink()
    assert not holds_artifacts(finished, world.storage), "gone"


class Bucket(Storage):
    """A store that holds the files of a folder.

    Attributes:
        away: it does not answer.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.away = False

    def open(self, uri: StorageUri, roles: Roles, *, holds_rows: bool = False) -> Remote:
        bucket: Any = SimpleNamespace(uri=uri, entries=lambda: self._entries(uri), read=self._read)
        opened: Remote = bucket
        return opened

    def _entries(self, uri: StorageUri) -> dict[str, Entry]:
        if self.away:
            raise StorageUnavailable("StorageUnavailable", "the store is away")
        folder = self.root / uri.path
        files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
        names = {"" if path == folder else path.relative_to(folder).as_posix(): path for path in files}
        return {name: Entry(name, path.stat().st_size, str(path)) for name, path in names.items()}

    def _read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        yield Path(entry.identity).read_bytes()[offset:]


def test_an_artifact_in_a_store_is_compared_without_fetching_it(world: World) -> None:
    source = store_artifact(world)
    bucket = Bucket(world.root / "pvc")
    remote = source.model_copy(update={"uri": source.uri.replace("pvc://", "s3://bucket/")})
    finished = FinishedWork(uid="earlier", artifacts=(remote,))
    assert holds_artifacts(finished, bucket)
    other = remote.model_copy(update={"digest": sha256_digest(b"another")})
    assert not holds_artifacts(finished.model_copy(update={"artifacts": (remote, other)}), bucket)
    weights = folder_of(world, source) / "adapter_model.safetensors"
    weights.write_bytes(WEIGHTS + b"more")
    assert not holds_artifacts(finished, bucket)
    (weights.parent / MANIFEST_FILE).unlink()
    assert not holds_artifacts(finished, bucket)
    bucket.away = True
    with pytest.raises(StorageUnavailable):
        holds_artifacts(finished, bucket)


def test_answers_in_a_store_are_compared_by_their_size(world: World) -> None:
    bucket = Bucket(world.root / "pvc")
    path = world.output / "items.jsonl"
    path.write_bytes(WEIGHTS)
    answers = Artifact(
        uri="s3://bucket/out/items.jsonl", digest=sha256_digest(WEIGHTS), size_bytes=len(WEIGHTS)
    )
    assert holds_file(answers, bucket, ("output",))
    assert not holds_file(answers.model_copy(update={"size_bytes": 1}), bucket, ("output",))
    path.unlink()
    assert not holds_file(answers, bucket, ("output",))


@pytest.mark.parametrize("text", [None, "", "{", '{"artifacts": 3}'])
def test_what_the_operator_does_not_tell_or_this_release_cannot_read_is_done_again(text: str | None) -> None:
    assert read_finished({FINISHED_ENV: text} if text is not None else {}) is None


def test_what_a_later_release_adds_is_ignored() -> None:
    found = read_finished({FINISHED_ENV: '{"uid": "earlier", "later": 1}'})
    assert found == FinishedWork(uid="earlier")
