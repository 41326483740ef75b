"""A FineTuneJob that is deleted and applied again takes its finished training over, and never that of another."""

from copy import deepcopy
from typing import Any

import pytest
from simulation.search_world import SEARCH
from simulation.simulated_cluster import (
    DIGEST,
    EVALUATION,
    GENERATE,
    UID,
    fine_tune_job,
    success,
)
from simulation.training_world import World, created, training, world

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.conditions import timestamp
from tunesmith.decide.plan import Create, Delete, Patch, Plan, owned_by
from tunesmith.manifests.finished_work import KEPT_IN_EACH, finished_work_owner, read_finished_work
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV
from tunesmith_contract.report import SearchReport

NEW_UID = "9a9a9a9a-1111-2222-3333-444455556666"
ANOTHER = f"sha256:{'c' * 64}"


def trained(**spec: Any) -> World:
    """A job that has trained, and its finished work."""
    cluster = training(**spec)
    cluster.succeed("train")
    cluster.reconcile()
    return cluster


def apply_again(cluster: World, uid: str = NEW_UID, **spec: Any) -> None:
    """Delete the job with all that belongs to it, and create one of the same name."""
    old = cluster.resource["metadata"]["uid"]
    gone = [key for key, body in cluster.objects.items() if owned_by(body, old) or key[0] == "Pod"]
    for key in gone:
        del cluster.objects[key]
    cluster.pass_time(3600)
    cluster.resource = fine_tune_job(**spec)
    cluster.resource["metadata"] |= {"uid": uid, "creationTimestamp": timestamp(cluster.now)}
    cluster.events.clear()
    cluster.reconcile()


def told_to_pod(cluster: World) -> FinishedWork | None:
    """What the pod of the live Job is to compare."""
    (container,) = cluster.job()["spec"]["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    text = values.get(FINISHED_ENV)
    return FinishedWork.model_validate_json(text) if text else None


def find_unchanged(cluster: World, uid: str = UID) -> Plan:
    """Preparation finds rows, base model and artifact as they were."""
    return cluster.end(0, success("prepare").model_copy(update={"reused": uid}))


def test_it_trains_no_second_time() -> None:
    cluster = trained()
    first = deepcopy(cluster.status)
    apply_again(cluster)
    told = told_to_pod(cluster)
    assert told is not None
    assert (told.uid, told.dataset_digest, told.base_model_revision) == (UID, DIGEST, "r1")
    assert [source.digest for source in told.artifacts] == [first["artifact"]["digest"]]
    plan = find_unchanged(cluster)
    assert not cluster.live_jobs(), "no Job trains"
    assert created(plan) == [
        "expenses-9a9a9a-result-prepare-1",
        "expenses-9a9a9a-run",
        "expenses-9a9a9a-result-train-1",
    ]
    status = cluster.status
    assert status["phase"] == "Succeeded"
    assert status["artifact"] == first["artifact"]
    assert status["progress"] == first["progress"]
    assert status["resolved"] == first["resolved"]
    assert status["cost"]["gpuSeconds"] == "0"
    adopted = cluster.condition("Adopted")
    assert (adopted["status"], adopted["reason"]) == ("True", "FinishedBefore")
    assert UID in adopted["message"]
    assert first["completionTime"] in adopted["message"]
    assert "FinishedBefore" in cluster.events
    assert cluster.condition("Ready")["status"] == "True"
    assert not cluster.reconcile().actions


def test_it_is_taken_over_any_number_of_times_and_says_who_trained() -> None:
    cluster = trained()
    for number in range(3):
        apply_again(cluster, uid=f"9a9a9a9{number}-1111-2222-3333-444455556666")
        find_unchanged(cluster)
        assert not cluster.live_jobs()
        assert UID in cluster.condition("Adopted")["message"]


@pytest.mark.parametrize("actions", range(4))
def test_a_restart_at_any_point_comes_to_the_same(actions: int) -> None:
    cluster = trained()
    apply_again(cluster)
    cluster.finish(cluster.job(), 0, success("prepare").model_copy(update={"reused": UID}))
    cluster.carry_out(cluster.plan(), killed_after=actions)
    cluster.reconcile()
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"
    assert ("Job", "expenses-9a9a9a-train-1") not in cluster.objects


def test_it_makes_its_evaluation_of_the_same_artifact() -> None:
    cluster = trained(evaluation=EVALUATION)
    apply_again(cluster, evaluation=EVALUATION)
    find_unchanged(cluster)
    assert cluster.status["evalRun"] == "expenses"


def test_its_evaluation_waits_until_that_of_the_deleted_job_is_gone() -> None:
    cluster = trained(evaluation=EVALUATION)
    former = cluster.objects["EvalRun", "expenses"]
    apply_again(cluster, evaluation=EVALUATION)
    cluster.objects["EvalRun", "expenses"] = former
    find_unchanged(cluster)
    assert cluster.status["phase"] == "Succeeded"
    assert "evalRun" not in cluster.status
    assert "EvalRunNameTaken" not in cluster.events
    del cluster.objects["EvalRun", "expenses"]
    cluster.reconcile()
    assert cluster.status["evalRun"] == "expenses"
    assert owned_by(cluster.objects["EvalRun", "expenses"], NEW_UID)


CHANGES: dict[str, dict[str, Any]] = {
    "rows at another place": {"dataset": {"train": {"uri": "configmap://rows/other.jsonl"}}},
    "other hyperparameters": {"hyperparameters": {"epochs": 4}},
    "another adapter": {"adapter": {"rank": 8}},
    "another base model": {"baseModel": {"uri": "pvc://models/small"}},
    "another output": {"output": {"uri": "pvc://artifacts/other"}},
    "another image": {"compute": {"gpusPerNode": 1, "image": "mine:2"}},
    "it must not": {"reuse": "Never"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_spec_trains(change: dict[str, Any]) -> None:
    cluster = trained()
    apply_again(cluster, **change)
    assert told_to_pod(cluster) is None
    # Even where a pod claims it.
    find_unchanged(cluster)
    assert cluster.job()["metadata"]["name"] == "expenses-9a9a9a-train-1"
    assert "Adopted" not in {item["type"] for item in cluster.status["conditions"]}


def test_fields_that_decide_no_result_may_differ() -> None:
    cluster = trained()
    apply_again(cluster, activeDeadlineSeconds=600, ttlSecondsAfterFinished=60)
    assert told_to_pod(cluster) is not None


def test_changed_rows_or_a_lost_artifact_train() -> None:
    cluster = trained()
    apply_again(cluster)
    cluster.succeed("prepare")  # which found something changed, or is of a release that compares nothing
    assert cluster.job()["metadata"]["name"] == "expenses-9a9a9a-train-1"


def test_a_pod_that_names_another_job_is_not_believed() -> None:
    cluster = trained()
    apply_again(cluster)
    find_unchanged(cluster, uid="another")
    assert cluster.job()["metadata"]["name"] == "expenses-9a9a9a-train-1"


@pytest.mark.parametrize("member", ["name", "namespace"])
def test_a_job_of_another_name_or_namespace_trains(member: str) -> None:
    cluster = trained()
    work = [body for body in cluster.objects.values() if body["metadata"]["name"].startswith("finished-")]
    cluster.resource = fine_tune_job()
    cluster.resource["metadata"] |= {
        "uid": NEW_UID,
        "creationTimestamp": timestamp(cluster.now),
        member: "other",
    }
    cluster.objects = {("ConfigMap", body["metadata"]["name"]): body for body in work}
    # As if the ConfigMap had been copied to where it is looked for.
    for body in work:
        body["metadata"]["labels"][OWNER_UID_LABEL] = finished_work_owner(FineTuneJob.parse(cluster.resource))
    cluster.reconcile()
    assert told_to_pod(cluster) is None


def test_work_that_was_not_finished_is_not_taken_over() -> None:
    cluster = training()
    assert not read_finished_work(cluster.children("ConfigMap"))
    apply_again(cluster)
    assert told_to_pod(cluster) is None


def test_a_search_in_one_pod_is_taken_over_with_its_trials() -> None:
    search = {key: value for key, value in SEARCH.items() if key != "parallelism"} | {"mode": "SharedPod"}
    cluster = training(search=search)
    lines = ("2 Completed 0.25 60 0.0001 8", "1 Completed 0.5 60 0.001 16")
    report = success("train")
    assert report.training is not None
    found = SearchReport(best=2, completed=2, trials=lines, folder="pvc://artifacts/search")
    cluster.end(
        0, report.model_copy(update={"training": report.training.model_copy(update={"search": found})})
    )
    cluster.reconcile()
    first = deepcopy(cluster.status)
    apply_again(cluster, search=search)
    find_unchanged(cluster)
    cluster.reconcile()
    assert not cluster.live_jobs()
    assert cluster.status["search"] == first["search"]
    assert cluster.status["artifact"] == first["artifact"]


def test_rows_of_a_teacher_are_generated_anew() -> None:
    cluster = world(dataset={"generate": GENERATE})
    for stage in ("generate", "prepare", "train"):
        cluster.succeed(stage)
    cluster.reconcile()
    assert not any(name.startswith("finished-") for _, name in cluster.objects)


def test_the_old_pods_may_still_end_while_the_new_job_begins() -> None:
    cluster = training()
    old = cluster.job()
    apply_again(cluster)
    cluster.objects["Job", old["metadata"]["name"]] = old
    names = [job["metadata"]["name"] for job in cluster.live_jobs()]
    assert names == ["expenses-9a9a9a-prepare-1"]
    config = cluster.objects["ConfigMap", "expenses-9a9a9a-inputs"]["data"]["run.json"]
    assert UID not in config, "its pods write to a folder of their own"


@pytest.mark.parametrize("text", ["", "{", '{"kind": "FineTuneJob"}'])
def test_an_entry_that_somebody_broke_is_ignored(text: str) -> None:
    cluster = trained()
    (work,) = [body for (_, name), body in cluster.objects.items() if name.startswith("finished-")]
    work["data"][UID] = text
    apply_again(cluster)
    assert told_to_pod(cluster) is None


def test_a_configuration_of_an_unknown_release_is_not_taken_over() -> None:
    cluster = trained()
    (work,) = [body for (_, name), body in cluster.objects.items() if name.startswith("finished-")]
    work["data"][UID] = work["data"][UID].replace('\\"stage\\":\\"train\\"', '\\"stage\\":\\"other\\"')
    apply_again(cluster)
    assert told_to_pod(cluster) is None


def test_entries_are_bounded_and_the_latest_of_each_spec_is_kept() -> None:
    cluster = trained()
    for number in range(KEPT_IN_EACH + 4):
        spec = {"hyperparameters": {"seed": number}}
        apply_again(cluster, uid=f"{number:08}-1111-2222-3333-444455556666", **spec)
        cluster.succeed("prepare")
        cluster.succeed("train")
        cluster.reconcile()
        assert not cluster.reconcile().actions, "written once"
    (work,) = [body for (_, name), body in cluster.objects.items() if name.startswith("finished-")]
    assert "ownerReferences" not in work["metadata"], "garbage collection would take it with the job"
    kept = read_finished_work([work])
    assert len(kept) == KEPT_IN_EACH
    assert kept[-1].uid.startswith(f"{KEPT_IN_EACH + 3:08}")


def test_a_refused_config_map_withholds_no_result() -> None:
    cluster = training()
    cluster.refuses["ConfigMap"] = "exceeded quota"
    cluster.succeed("train")
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.condition("FinishedWorkKept")["status"] == "False"
    cluster.refuses.clear()
    cluster.reconcile()
    assert "FinishedWorkKept" not in {item["type"] for item in cluster.status["conditions"]}
    assert any(name.startswith("finished-") for _, name in cluster.objects)


def test_a_status_that_was_restored_is_kept_and_stops_what_had_begun() -> None:
    cluster = trained()
    status = deepcopy(cluster.status)
    apply_again(cluster)
    cluster.resource["status"] = status
    plan = cluster.reconcile()
    assert [(type(action), action.name) for action in plan.actions if isinstance(action, Delete)] == [
        (Delete, "expenses-9a9a9a-prepare-1")
    ]
    assert plan.status is None
    assert not any(isinstance(action, Create | Patch) for action in plan.actions)
    assert not cluster.live_jobs()
    assert not cluster.reconcile().actions
