"""``run.json`` between releases: an upgrade or rollback of the operator at any moment fails no run.

A run keeps the image that it began with, so an operator writes files for images of an earlier release, and reads
snapshots that an earlier or a later operator wrote.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from contracts.freeze import api_defaults, present_schema
from contracts.run_files import SPECS, begin, write_evaluation_file, write_training_files
from contracts.schema_reader import SchemaReader
from simulation.simulated_cluster import fine_tune_job
from simulation.training_world import World

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.inputs import apply_snapshot
from tunesmith.manifests.run_snapshots import SPEC_KEY, parse_inputs
from tunesmith_contract.run_config import TrainConfig, parse_run_config, run_file_text

PREVIOUS = Path(__file__).parent / "previous"
RELEASES = ["earlier", "latest"]


@cache
def reader(release: str) -> SchemaReader:
    return SchemaReader(json.loads((PREVIOUS / f"{release}.schema.json").read_text()))


def documents(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PREVIOUS / f"{release}.documents.json").read_text())
    return found


TRAINING_FILES = dict(write_training_files())
PRESENT = SchemaReader(present_schema())


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", TRAINING_FILES)
def test_images_of_earlier_releases_read_the_files_of_jobs_without_new_settings(
    release: str, name: str
) -> None:
    assert reader(release).mistakes(json.loads(TRAINING_FILES[name])) == []


def test_images_of_the_latest_release_read_the_file_of_an_evaluation() -> None:
    assert reader("latest").mistakes(json.loads(write_evaluation_file())) == []


def test_what_an_image_does_not_know_it_refuses_and_never_ignores() -> None:
    """Such a setting was written, so a run without it would be another one."""
    config = parse_run_config(TRAINING_FILES["plain: run run.json"])
    assert isinstance(config, TrainConfig)
    kept = config.model_copy(update={"checkpoints": config.checkpoints.model_copy(update={"retain": True})})
    assert reader("earlier").mistakes(json.loads(run_file_text(kept))) == ["$.checkpoints.retain is unknown"]
    assert reader("earlier").mistakes(config.to_dict()) == ["$.checkpoints.retain is unknown"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_default_of_a_member_never_changes(release: str) -> None:
    """It is not written, so an image of another release would take its own."""
    before, now = reader(release).defaults(), PRESENT.defaults()
    shared = before.keys() & now.keys()
    assert {name: now[name] for name in shared} == {name: before[name] for name in shared}


@pytest.mark.parametrize("release", RELEASES)
def test_no_member_becomes_required(release: str) -> None:
    before, now = reader(release).required(), PRESENT.required()
    assert {
        model: now[model] - before[model]
        for model in before.keys() & now.keys()
        if now[model] - before[model]
    } == {}


@pytest.mark.parametrize(
    ("release", "name"), [(release, name) for release in RELEASES for name in documents(release)]
)
def test_snapshots_of_earlier_releases_are_read_and_mean_the_same(release: str, name: str) -> None:
    document = documents(release)[name]
    read = parse_run_config(json.dumps(document)).to_dict()
    assert _differences(document, read) == []


@pytest.mark.parametrize("name", documents("latest"))
def test_a_short_file_means_what_the_whole_one_does(name: str) -> None:
    config = parse_run_config(json.dumps(documents("latest")[name]))
    assert parse_run_config(run_file_text(config)) == config


def test_no_member_that_may_be_null_has_another_default() -> None:
    """A null member is left out, and would be read as its default."""
    for definition in present_schema()["$defs"].values():
        for name, member in definition.get("properties", {}).items():
            if {"type": "null"} in member.get("anyOf", ()):
                assert member.get("default") is None, name


def test_the_spec_in_the_inputs_holds_no_defaults() -> None:
    cluster = World(fine_tune_job(backoffLimit=5, suspend=False, ttlSecondsAfterFinished=100))
    cluster.reconcile()
    spec = json.loads(cluster.objects["ConfigMap", "expenses-0f3c9d-inputs"]["data"][SPEC_KEY])
    assert spec["backoffLimit"] == 5
    assert not {"suspend", "ttlSecondsAfterFinished", "checkpoints", "hyperparameters"} & spec.keys()


#: Fields whose default became a value of the installation; it is the same there (``defaults.gpuResource``).
INSTALLED = (".gpuResource",)
BEGUN: dict[str, Any] = json.loads((PREVIOUS / "latest.jobs.json").read_text())


def test_the_default_of_a_field_of_the_api_never_changes() -> None:
    """Snapshots hold no default values, and the API server adds those of the CRD to what it has stored without them."""
    before: dict[str, Any] = json.loads((PREVIOUS / "latest.defaults.json").read_text())
    now = api_defaults()
    assert len(before) > 100
    shared = before.keys() & now.keys()
    # A field that was added within a default value has one of its own.
    changed = [each for name in shared for each in _differences(before[name], now[name], name)]
    assert [path for path in changed if not path.endswith(INSTALLED)] == []


@pytest.mark.parametrize("name", BEGUN)
def test_a_job_that_began_under_an_earlier_release_keeps_its_values(name: str) -> None:
    frozen, cluster = BEGUN[name], begin(SPECS[name])
    for (kind, config_map), body in cluster.objects.items():
        if kind == "ConfigMap":
            body["data"] = frozen["configMaps"][config_map]
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["resolved"] == frozen["resolved"]
    inputs = parse_inputs(cluster.objects["ConfigMap", "expenses-0f3c9d-inputs"])
    job = apply_snapshot(FineTuneJob.parse(cluster.resource), inputs)
    changed = _differences(frozen["spec"], job.spec.to_dict())
    assert [path for path in changed if not path.endswith(INSTALLED)] == []
    assert cluster.job()["metadata"]["labels"]["tunesmith.dev/stage"] == "train"


def _differences(before: Any, now: Any, path: str = "$") -> list[str]:
    """Members of a document that are lost or changed in another; further ones are none."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for name, value in before.items()
            for found in _differences(value, now.get(name), f"{path}.{name}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            found
            for index, (one, other) in enumerate(zip(before, now, strict=True))
            for found in _differences(one, other, f"{path}[{index}]")
        ]
    return [] if before == now else [path]
