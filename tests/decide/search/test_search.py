"""A search runs its trials, takes the best one's artifact, and is held, resumed, pruned and bounded."""

from typing import Any

import pytest
from simulation.search_world import SEARCH, SearchWorld, loss_of, trained
from simulation.simulated_cluster import DIGEST, EVALUATION, START, failure, success

from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.manifests.run_snapshots import parse_run
from tunesmith.manifests.trial_job import STOP_ANNOTATION
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.progress import TRIAL_PREFIX, ProgressMetric, TrainerStatus
from tunesmith_contract.report import IssueCount, SearchReport
from tunesmith_contract.search import TrialState

HALVING = SEARCH | {"pruner": "SuccessiveHalving", "parallelism": 4}


def searching(search: dict[str, Any] | None = None, **spec: Any) -> SearchWorld:
    world = SearchWorld(search or SEARCH, **spec)
    world.prepare()
    return world


def state(world: SearchWorld) -> dict[str, Any]:
    found: dict[str, Any] = world.search["status"]["search"]
    return found


def test_trials_run_side_by_side_and_the_best_artifact_is_the_jobs() -> None:
    world = searching()
    assert [body["metadata"]["name"] for body in world.trial_jobs()] == [
        "expenses-trial-1",
        "expenses-trial-2",
    ]
    assert world.search["status"]["phase"] == "Searching"
    assert state(world)["running"] == 2
    world.run_to_the_end()
    status = world.search["status"]
    assert status["phase"] == "Succeeded"
    assert (status["search"]["ended"], status["search"]["completed"]) == ("4/4", 4)
    losses = {body["metadata"]["name"]: loss_of(body) for body in world.trial_jobs()}
    best = min(losses, key=lambda name: losses[name])
    assert status["artifact"]["uri"] == f"pvc://artifacts/{best}"
    assert status["search"]["best"]["number"] == int(best[-1])
    assert status["progress"]["evalLoss"] == status["search"]["best"]["loss"]
    assert world.events.count("TrialStarted") == world.events.count("TrialEnded") == 4
    assert world.events.count("Searched") == 1


def test_the_data_is_prepared_once() -> None:
    world = searching()
    stages = {
        name: body["metadata"]["labels"]["tunesmith.dev/stage"]
        for (kind, name), body in world.objects.items()
        if kind == "Job"
    }
    assert sorted(stages.values()) == ["prepare", "train", "train"]
    uid = world.search["metadata"]["uid"]
    for body in world.trial_jobs():
        with world.focus(body):
            maps = world.children("ConfigMap")
        (run,) = (parse_run(item) for item in maps if item["metadata"]["name"].endswith("-run"))
        assert run.prepared_by == uid
        assert run.owner.uid == body["metadata"]["uid"]
        assert run.hyperparameters.learning_rate == float(body["spec"]["hyperparameters"]["learningRate"])
        assert run.adapter is not None
        assert run.adapter.rank == body["spec"]["adapter"]["rank"]


def test_issues_of_the_data_are_told_once() -> None:
    world = SearchWorld()
    world.reconcile_all()
    report = success("prepare")
    assert report.dataset is not None
    dataset = report.dataset.model_copy(update={"issues": (IssueCount("contradicting_answers", 3),)})
    world.finish(world.job(), 0, report.model_copy(update={"dataset": dataset}))
    world.settle()
    assert len(world.running_trials()) == 2
    assert world.events.count("DataIssues") == 1


def test_the_best_trials_configuration_is_the_jobs() -> None:
    world = searching()
    world.run_to_the_end()
    maps = world.children("ConfigMap")
    (run,) = (parse_run(item) for item in maps if item["metadata"]["name"].endswith("-run"))
    chosen = state(world)["best"]["parameters"]
    assert world.search["status"]["resolved"]["learningRate"] == f"{float(chosen['learningRate']):.6g}"
    assert run.hyperparameters.learning_rate == float(chosen["learningRate"])
    assert world.search["status"]["artifact"]["kind"] == "LoRA"
    assert world.condition("Servable")["status"] == "Unknown"  # the report of this tiny model says too little


def test_the_evaluation_is_the_jobs_alone() -> None:
    world = searching(evaluation=EVALUATION)
    world.run_to_the_end()
    assert [name for kind, name in world.objects if kind == "EvalRun"] == ["expenses"]
    assert world.search["status"]["evalRun"] == "expenses"
    assert all("evaluation" not in body["spec"] for body in world.trial_jobs())


def test_gpu_time_of_all_trials_is_the_cost_of_the_job() -> None:
    world = searching(budget={"pricePerGpuHour": "3.60", "currency": "EUR"})
    world.run_to_the_end()
    spent = sum(float(trial["gpuSeconds"]) for trial in state(world)["trials"])
    assert spent > 0
    assert float(world.search["status"]["cost"]["gpuSeconds"]) == pytest.approx(spent, abs=2)
    assert float(world.search["status"]["cost"]["amount"]) == pytest.approx(spent / 1000, abs=0.02)


def test_a_failed_trial_is_counted_and_the_search_goes_on() -> None:
    world = searching(backoffLimit=0)
    world.end_trial(world.running_trials()[0], ExitCode.OUT_OF_MEMORY, failure("train", "OutOfMemory"))
    world.run_to_the_end()
    assert world.search["status"]["phase"] == "Succeeded"
    assert (state(world)["failed"], state(world)["completed"]) == (1, 3)
    (failed,) = (trial for trial in state(world)["trials"] if trial["state"] == "Failed")
    assert "told" in failed["message"]
    assert "TrialFailed" in world.events


def fail_all(world: SearchWorld) -> None:
    for _ in range(60):
        world.settle(4)
        for body in world.running_trials():
            world.end_trial(body, ExitCode.USER_ERROR, failure("train", "UserError"))
        if world.search["status"]["phase"] == "Failed":
            return
    raise AssertionError("the search does not end")


def test_a_search_fails_when_all_of_its_trials_do() -> None:
    world = searching()
    fail_all(world)
    assert world.condition("Ready")["reason"] == "NoTrialSucceeded"
    assert "None of 4 trials" in world.search["status"]["failure"]["message"]
    assert "told" in world.search["status"]["failure"]["message"]


def test_no_trial_follows_when_the_first_ones_all_fail() -> None:
    world = searching(SEARCH | {"parallelism": 1, "budget": {"trials": 20}})
    fail_all(world)
    assert len(world.trial_jobs()) == 5


def measure(world: SearchWorld, body: dict[str, Any], step: int, loss: float) -> None:
    """A trial of 100 steps has measured its validation loss."""
    progress = {"step": step, "totalSteps": 100, "evalLoss": str(loss), "percent": f"{step}%"}
    body["status"]["progress"] = progress


def test_a_trial_that_falls_behind_is_stopped_by_its_losses() -> None:
    world = searching(HALVING)
    bodies = world.running_trials()
    assert len(bodies) == 4
    for number, body in enumerate(bodies, 1):
        measure(world, body, 10, float(number))
    world.carry_out(world.plan())
    stopped = [STOP_ANNOTATION in body["metadata"]["annotations"] for body in bodies]
    assert stopped == [False, True, True, True]
    world.settle(2)
    with world.focus(bodies[1]):
        job = world.job()
        assert job["spec"]["activeDeadlineSeconds"] == 1
        world.pass_time(30)
        world.exceed_deadline(job)
    world.settle()
    second = state(world)["trials"][1]
    assert (second["state"], second["loss"]) == ("Pruned", "2")
    assert second["compared"] == [{"percent": 10, "loss": "2"}]
    assert "After 10 % of its steps" in second["message"]
    assert bodies[1]["status"]["failure"]["reason"] == "Pruned"


def test_losses_at_points_of_comparison_stay_in_status() -> None:
    world = searching(HALVING)
    body = world.running_trials()[0]
    measure(world, body, 10, 0.9)
    world.carry_out(world.plan())
    measure(world, body, 50, 0.4)
    world.carry_out(world.plan())
    assert state(world)["trials"][0]["compared"] == [
        {"percent": 10, "loss": "0.9"},
        {"percent": 30, "loss": "0.4"},
    ]


def test_trials_that_are_pruned_measure_each_point_of_comparison() -> None:
    for body in searching(HALVING).trial_jobs():
        steps = body["status"]["estimate"]["steps"]
        assert body["spec"]["checkpoints"]["everySteps"] == steps // 10
    assert searching().trial_jobs()[0]["spec"]["checkpoints"]["everySteps"] == 100


def test_suspend_holds_the_trials_and_false_resumes_them() -> None:
    world = searching()
    world.search["spec"]["suspend"] = True
    world.settle()
    assert world.search["status"]["phase"] == "Suspended"
    assert [body["spec"]["suspend"] for body in world.trial_jobs()] == [True, True]
    assert not world.running_trials()
    world.search["spec"]["suspend"] = False
    world.settle()
    assert len(world.running_trials()) == 2
    world.run_to_the_end()
    assert len(world.trial_jobs()) == 4


def test_a_trial_that_a_person_has_suspended_is_left_alone() -> None:
    world = searching()
    world.trial_jobs()[0]["spec"]["suspend"] = True
    world.settle()
    assert [body["spec"].get("suspend", False) for body in world.trial_jobs()] == [True, False]


def test_no_trial_begins_that_the_budget_cannot_pay() -> None:
    world = searching(SEARCH | {"parallelism": 1, "budget": {"trials": 20, "gpuHours": "0.1"}})
    assert world.trial_jobs()[0]["spec"]["budget"]["gpuHours"] == "0.1000"
    for _ in range(20):
        world.settle(4)
        for body in world.running_trials():
            world.pass_time(100)
            world.end_trial(body)
    assert world.search["status"]["phase"] == "Succeeded"
    assert len(world.trial_jobs()) == 3
    assert float(world.search["status"]["cost"]["gpuSeconds"]) <= 360


def test_trials_side_by_side_never_take_more_than_the_budget() -> None:
    world = searching(SEARCH | {"parallelism": 4, "budget": {"gpuHours": "2"}})
    hours = [float(body["spec"]["budget"]["gpuHours"]) for body in world.trial_jobs()]
    assert len(hours) == 4
    assert sum(hours) <= 2


def test_a_name_that_is_taken_is_a_failed_trial() -> None:
    world = SearchWorld()
    metadata = {
        "name": "expenses-trial-1",
        "namespace": "team",
        "uid": "other",
        "labels": {},
        "generation": 1,
    }
    spec = {key: value for key, value in world.search["spec"].items() if key != "search"}
    taken = {
        "kind": "FineTuneJob",
        "apiVersion": "tunesmith.dev/v1alpha1",
        "metadata": metadata,
        "spec": spec,
    }
    world.objects[("FineTuneJob", "expenses-trial-1")] = taken
    world.prepare()
    first = state(world)["trials"][0]
    assert first["state"] == "Failed"
    assert 'FineTuneJob "expenses-trial-1" exists already' in first["message"]
    assert [body["metadata"]["name"] for body in world.running_trials()] == [
        "expenses-trial-2",
        "expenses-trial-3",
    ]


def test_a_deleted_trial_is_made_again_with_the_same_values() -> None:
    world = searching()
    before = world.trial_jobs()[0]["spec"]
    del world.objects[("FineTuneJob", "expenses-trial-1")]
    world.settle()
    assert world.trial_jobs()[0]["spec"] == before
    world.run_to_the_end()
    assert len(world.proposals()) == len(world.records()) == 4


def test_a_wiped_status_comes_back() -> None:
    world = searching()
    world.run_to_the_end()
    before = world.search["status"]
    world.forget_status()
    world.settle()
    after = world.search["status"]
    for member in ("search", "artifact", "phase", "cost", "resolved"):
        assert after[member] == before[member], member


def test_a_trial_without_a_validation_loss_has_failed() -> None:
    world = searching(SEARCH | {"budget": {"trials": 1}})
    report = trained(0.5, "x")
    assert report.training is not None
    silent = report.model_copy(update={"training": report.training.model_copy(update={"eval_loss": None})})
    world.end_trial(world.running_trials()[0], report=silent)
    world.settle()
    assert state(world)["trials"][0]["message"] == "No validation loss was measured."
    assert world.records()[0].trial.state is TrialState.FAILED


def test_records_of_a_trial_that_are_seen_late_are_waited_for() -> None:
    world = searching(SEARCH | {"budget": {"trials": 1}})
    world.records_seen = False
    world.end_trial(world.running_trials()[0])
    world.settle()
    assert state(world)["running"] == 1
    assert world.plan().requeue_after == 2
    world.records_seen = True
    world.settle()
    assert state(world)["completed"] == 1


def test_records_that_never_come_are_a_failed_trial() -> None:
    world = searching(SEARCH | {"budget": {"trials": 1}})
    world.records_seen = False
    world.end_trial(world.running_trials()[0])
    world.settle()
    world.pass_time(100)
    world.settle()
    assert state(world)["trials"][0]["message"] == "Its records are gone."


def test_records_name_the_artifact() -> None:
    world = searching()
    world.run_to_the_end()
    reports = [record.report for record in world.records()]
    assert all(report and report.training and report.training.artifact.digest == DIGEST for report in reports)
    assert all(record.ended_at >= START for record in world.records())


SHARED = {key: value for key, value in SEARCH.items() if key != "parallelism"} | {"mode": "SharedPod"}


def progress(*lines: str) -> LiveProgress:
    """The latest update of the pod: the trials so far."""
    metrics = tuple(ProgressMetric(name=f"{TRIAL_PREFIX}{line.split()[0]}", value=line) for line in lines)
    return LiveProgress("train", 1, TrainerStatus(last_updated_time=START, metrics=metrics))


def shared_pod() -> SearchWorld:
    """A search in the pod of its job, which trains."""
    world = SearchWorld(SHARED)
    world.reconcile()
    world.finish(world.job(), 0, success("prepare"))
    world.reconcile()
    return world


def test_a_shared_pod_is_told_of_the_search() -> None:
    world = shared_pod()
    maps = world.children("ConfigMap")
    (run,) = (parse_run(item) for item in maps if item["metadata"]["name"].endswith("-run"))
    assert run.search is not None
    assert (run.search.trials, len(run.search.parameters)) == (4, 2)
    assert not world.trial_jobs()
    assert world.search["status"]["phase"] == "Searching"


def test_trials_of_a_shared_pod_are_recorded_as_they_end() -> None:
    world = shared_pod()
    world.progress = progress("1 Completed 0.5 60 0.001 16", "2 Running - 0 0.0001 8", "nonsense")
    world.reconcile()
    assert [(item.trial.number, item.trial.loss) for item in world.records()] == [(1, 0.5)]
    assert state(world)["ended"] == "1/4"
    second = state(world)["trials"][1]
    assert (second["state"], second["parameters"]) == ("Running", {"learningRate": "0.0001", "rank": "8"})
    # A later word of the pod does not change what is recorded, and a wiped status comes back without it.
    world.progress = progress("1 Failed - 9 0.001 16")
    world.forget_status()
    world.reconcile()
    assert state(world)["best"]["loss"] == "0.5"
    assert float(world.search["status"]["cost"]["gpuSeconds"]) == 0


def test_the_report_of_a_shared_pod_ends_the_search() -> None:
    world = shared_pod()
    report = trained(0.25, "best")
    assert report.training is not None
    lines = ("2 Completed 0.25 60 0.0001 8", "1 Completed 0.5 60 0.001 16", "3 Pruned 0.9 6 0.01 8")
    found = SearchReport(best=2, completed=2, pruned=1, trials=lines, folder="pvc://artifacts/search")
    training = report.training.model_copy(update={"search": found})
    world.end(0, report.model_copy(update={"training": training}))
    status = world.search["status"]
    assert (status["phase"], status["artifact"]["uri"]) == ("Succeeded", "pvc://artifacts/best")
    assert (status["search"]["best"]["number"], status["search"]["ended"]) == (2, "3/4")
    assert status["search"]["folder"] == "pvc://artifacts/search"
    assert len(world.records()) == 3
