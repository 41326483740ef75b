"""Finished work is taken over only where the pod finds it as it was."""

import json
from pathlib import Path

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_contract.artifact import File, Lineage, Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV, MANIFEST_FILE
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.pod.finished import holds_artifacts, read_finished

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


@pytest.mark.parametrize("text", [None, "", "{", '{"artifacts": 3}'])
def test_what_the_operator_does_not_tell_or_this_release_cannot_read_is_done_again(text: str | None) -> None:
    assert read_finished({FINISHED_ENV: text} if text is not None else {}) is None


def test_what_a_later_release_adds_is_ignored() -> None:
    found = read_finished({FINISHED_ENV: '{"uid": "earlier", "later": 1}'})
    assert found == FinishedWork(uid="earlier")
