"""Snapshots that somebody deletes: made again from what is left, or waited for; no result is lost."""

from typing import Any

import pytest
from simulation.simulated_cluster import EVALUATION, GENERATE, fine_tune_job
from simulation.training_world import World, training, world

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith.manifests.environment import Environment

INPUTS = ("ConfigMap", "expenses-0f3c9d-inputs")
RUN = ("ConfigMap", "expenses-0f3c9d-run")
ARTIFACT = {"uri": f"s3://artifacts/team/sha256/{'b' * 64}", "digest": f"sha256:{'b' * 64}"}
ON_EARLIER = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}}
FOUND, GONE = "found", "gone"


def earlier() -> FineTuneJob:
    """A job that succeeded, on whose artifact another begins."""
    body = fine_tune_job(baseModel={"uri": "hf://org/model@main", "secretRef": {"name": "hub"}})
    body["metadata"]["name"] = "earlier"
    body["status"] = {
        "phase": "Succeeded",
        "resolved": {"baseModel": "hf://org/model@main", "baseModelRevision": "c0ffee"},
        "artifact": ARTIFACT | {"kind": "LoRA"},
    }
    return FineTuneJob.parse(body)


def begun(**spec: Any) -> World:
    """A job that prepares data, on an earlier one if it names it."""
    cluster = World(fine_tune_job(**spec))
    cluster.related = RelatedObjects(earlier={"earlier": earlier()} if "baseModel" in spec else {})
    cluster.reconcile()
    return cluster


def remove(cluster: World, *keys: tuple[str, str]) -> None:
    for key in keys:
        del cluster.objects[key]


def lose_earlier(cluster: World) -> None:
    cluster.related = RelatedObjects(earlier={"earlier": None})


SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "on an earlier job": ON_EARLIER,
    "generated": {"dataset": {"generate": GENERATE}},
    "own image": {"compute": {"gpusPerNode": 1, "image": "mine:1"}},
    "evaluated": {"evaluation": EVALUATION},
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_inputs_are_made_again_as_they_were_while_a_stage_runs(spec: dict[str, Any]) -> None:
    cluster = begun(**spec)
    while cluster.status["phase"] != "Succeeded":
        data = cluster.objects[INPUTS]["data"]
        remove(cluster, INPUTS)
        cluster.pass_time(60)
        cluster.reconcile()
        assert cluster.objects[INPUTS]["data"] == data
        stage = cluster.job()["metadata"]["labels"]["tunesmith.dev/stage"]
        cluster.succeed(stage)
    assert cluster.status["attempts"] == (3 if "dataset" in spec else 2)
    assert cluster.status["artifact"]


def test_a_job_on_an_earlier_one_that_is_gone_trains_to_its_end() -> None:
    cluster = begun(**ON_EARLIER)
    cluster.succeed("prepare")
    data = cluster.objects[INPUTS]["data"]
    lose_earlier(cluster)
    remove(cluster, INPUTS)
    cluster.pass_time(10**4)
    cluster.reconcile()
    assert cluster.status["phase"] == "Training"
    assert cluster.condition("Stalled")["status"] == "False"
    assert cluster.objects[INPUTS]["data"] == data
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]


def test_what_runs_is_followed_to_its_end_while_its_inputs_cannot_be_known() -> None:
    cluster = begun(**ON_EARLIER)
    lose_earlier(cluster)
    remove(cluster, INPUTS)
    cluster.pass_time(10**4)
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    cluster.succeed("prepare")
    assert ("ConfigMap", "expenses-0f3c9d-result-prepare-1") in cluster.objects
    cluster.pass_time(10**4)
    plan = cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert cluster.status["dataset"]
    ready = cluster.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "WaitingForJob")
    assert ready["message"].startswith("The ConfigMap with the job's inputs was deleted")
    assert 'FineTuneJob "earlier" does not exist' in ready["message"]
    assert plan.requeue_after is not None
    assert cluster.condition("Stalled")["status"] == "False"
    cluster.related = RelatedObjects(earlier={"earlier": earlier()})
    cluster.reconcile()
    assert cluster.status["phase"] == "Training"
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"


def test_an_earlier_job_that_is_missing_for_long_fails_nothing_that_has_begun() -> None:
    cluster = begun(**ON_EARLIER)
    lose_earlier(cluster)
    remove(cluster, INPUTS)
    cluster.end(1)
    for _ in range(5):
        cluster.pass_time(10**4)
        cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["phase"] == "Pending"


@pytest.mark.parametrize("keys", [(INPUTS,), (RUN,), (INPUTS, RUN)], ids=["inputs", "run", "both"])
@pytest.mark.parametrize("spec", [{}, ON_EARLIER], ids=["plain", "on an earlier job"])
@pytest.mark.parametrize("source", [FOUND, GONE])
def test_a_success_stays_a_success(keys: Any, spec: dict[str, Any], source: str) -> None:
    cluster = begun(**spec)
    cluster.succeed("prepare")
    cluster.pass_time(60)
    cluster.succeed("train")
    before = cluster.status
    if spec and source == GONE:
        lose_earlier(cluster)
    remove(cluster, *keys)
    cluster.pass_time(10**4)
    plan = cluster.reconcile()
    assert cluster.status == before
    assert not plan.actions
    cluster.forget_status()
    cluster.reconcile()
    kept = ("phase", "artifact", "dataset", "cost", "completionTime", "attempts")
    assert {name: cluster.status[name] for name in kept} == {name: before[name] for name in kept}
    assert cluster.condition("Ready")["status"] == "True"


def test_a_success_that_comes_while_everything_is_gone_counts() -> None:
    cluster = begun(**ON_EARLIER)
    cluster.succeed("prepare")
    lose_earlier(cluster)
    remove(cluster, INPUTS, RUN)
    cluster.forget_status()
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]


def test_a_failure_stays_the_failure_that_it_was() -> None:
    cluster = begun(**ON_EARLIER)
    cluster.end(11)
    before = cluster.status
    lose_earlier(cluster)
    remove(cluster, INPUTS)
    cluster.reconcile()
    assert cluster.status == before


def test_the_training_configuration_is_made_again_for_the_next_attempt() -> None:
    cluster = training()
    data = cluster.objects[RUN]["data"]
    cluster.end(1)
    remove(cluster, RUN)
    cluster.pass_time(60)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"].endswith("train-2")
    assert cluster.objects[RUN]["data"] == data


def test_a_job_goes_on_with_the_image_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = world()
    monkeypatch.setattr(
        "simulation.training_world.ENVIRONMENT",
        Environment("trainer:2", "serving:2", "https://operator", "PEM"),
    )
    for _ in range(2):
        remove(cluster, INPUTS)
        cluster.forget_status()
        cluster.reconcile()
        assert cluster.objects[INPUTS]["data"]["image"] == "trainer:1"
        if cluster.live_jobs()[0]["metadata"]["name"].endswith("prepare-1"):
            cluster.succeed("prepare")
    assert cluster.job()["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:1"
