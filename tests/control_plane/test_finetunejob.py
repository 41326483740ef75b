"""A FineTuneJob on a real API server with real controllers; the operator is a process that may be killed."""

from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition, lasting
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import DIGEST, EVALUATION, failure, fine_tune_job, success

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import IssueCount

KIND = "FineTuneJob"

#: The garbage collector learns of a new kind every 30 s.
GARBAGE_SECONDS = 90


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> Runs:
    """A namespace with claims and rows."""
    made = Runs(server, tmp_path)
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/configmaps", rows)
    return made


def job(**spec: Any) -> dict[str, Any]:
    return fine_tune_job(compute={"gpusPerNode": 0}, **spec)


def begin(runs: Runs, name: str, **spec: Any) -> dict[str, Any]:
    """A job that prepares."""
    made = runs.create(job(**spec), name)
    runs.wait(KIND, name, "Preparing")
    return made


def train(runs: Runs, name: str, **spec: Any) -> dict[str, Any]:
    """A job that trains."""
    made = begin(runs, name, **spec)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    runs.wait(KIND, name, "Training")
    return made


def test_it_succeeds_and_makes_its_evaluation(runs: Runs) -> None:
    made = train(runs, "good", evaluation=EVALUATION)
    runs.finish(made, "train", 1, 0, success("train"))
    status = runs.wait(KIND, "good", "Succeeded")
    assert status["artifact"]["digest"] == DIGEST
    assert condition(status, "Ready")["status"] == "True"
    assert status["evalRun"] == "good"
    evaluation = runs.read("EvalRun", "good")
    assert evaluation["spec"]["candidate"]["fineTuneJobRef"] == {"name": "good"}
    runs.pod(evaluation, "evaluate", 1)
    columns = runs.server.kubectl("get", "ftj", "good", f"--namespace={runs.namespace}")
    assert "Succeeded" in columns
    assert "100%" in columns


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (ExitCode.USER_ERROR, "UserError"),
        (ExitCode.DATA_ERROR, "DataError"),
        (ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
        (ExitCode.COMMUNICATION, "Communication"),
        (ExitCode.INFRASTRUCTURE, "Infrastructure"),
        (ExitCode.INTERNAL_ERROR, "InternalError"),
        (1, "Infrastructure"),
        (137, "Infrastructure"),
    ],
)
def test_each_exit_code_has_its_category(runs: Runs, code: int, category: str) -> None:
    made = train(runs, "bad", backoffLimit=0, hyperparameters={"batchSize": 1})
    told = failure("train", category, "what to do") if code in set(ExitCode) else None
    runs.finish(made, "train", 1, code, told)
    status = runs.wait(KIND, "bad", "Failed")
    assert (status["failure"]["category"], status["failure"]["exitCode"]) == (category, code)
    assert condition(status, "Stalled")["status"] == "True"
    assert condition(status, "Ready")["status"] == "False"


def test_disruptions_lead_to_another_attempt_without_counting(runs: Runs) -> None:
    made = train(runs, "moved", backoffLimit=0)
    runs.finish(made, "train", 1, ExitCode.PREEMPTED)
    runs.wait_for_reason(KIND, "moved", "Disrupted")
    pod = runs.pod(made, "train", 2)
    runs.server.evict_pod(runs.namespace, pod["metadata"]["name"])
    runs.pod(made, "train", 3)
    runs.finish(made, "train", 3, 0, success("train"))
    status = runs.wait(KIND, "moved", "Succeeded")
    assert (status["attempts"], status["disruptions"]) == (4, 2)


def test_a_missing_claim_is_named(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> None:
    runs = Runs(server, tmp_path, claims=("artifacts",))
    runs.create(job(), "lost")
    told = runs.wait_for_reason(KIND, "lost", "VolumeClaimNotFound")
    assert told["status"] == "False"
    assert told["message"].startswith(
        f'PersistentVolumeClaim "models" does not exist in namespace {runs.namespace}'
    )
    server.add_volume(runs.namespace, "models", tmp_path, "gpu-0")
    eventually(
        lambda: condition(runs.status(KIND, "lost"), "Ready")["reason"] == "Preparing", 60, what="its coming"
    )


def test_what_was_found_in_the_data_is_told(runs: Runs) -> None:
    suite = EVALUATION["suites"][0] | {"dataset": {"uri": "configmap://tests/task.jsonl"}}
    train = {"uris": ["configmap://rows/train.jsonl", "pvc://data/more/"]}
    made = runs.create(job(dataset={"train": train}, evaluation=EVALUATION | {"suites": [suite]}), "told")
    pod = runs.pod(made, "prepare", 1)
    mounted = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert {f"/mnt/tunesmith/{name}" for name in ("configmap/rows", "configmap/tests", "pvc/data")} <= mounted
    report = success("prepare")
    assert report.dataset is not None
    # A check that names itself twice does not make the API server refuse the status.
    found = {
        "issues": (IssueCount("copied_answers", 3),) * 2,
        "leaked_rows": 5,
        "page": "pvc://artifacts/r.html",
    }
    dataset = report.dataset.model_copy(update=found)
    runs.finish(made, "prepare", 1, 0, report.model_copy(update={"dataset": dataset}))
    status = runs.wait(KIND, "told", "Training")
    assert status["dataset"]["issues"] == [{"check": "copied_answers", "rows": 3}] * 2
    assert (status["dataset"]["leakedRows"], status["dataset"]["report"]) == (5, "pvc://artifacts/r.html")
    assert status["estimate"] == {"steps": 102, "epochs": 3, "tokens": 64800}
    assert "left out: 5 leaked" in condition(status, "DataReady")["message"]
    events = f"/apis/events.k8s.io/v1/namespaces/{runs.namespace}/events"
    eventually(
        lambda: [each for each in runs.server.api.get(events)["items"] if each["reason"] == "DataIssues"],
        what="an event that names the issues",
    )


def test_a_spec_is_refused_that_changes_what_was_begun(runs: Runs) -> None:
    begin(runs, "fixed")
    with pytest.raises(ApiError, match="hyperparameters can't be changed after the job is created"):
        runs.patch(KIND, "fixed", {"spec": {"hyperparameters": {"epochs": 9}}})
    assert runs.patch(KIND, "fixed", {"spec": {"ttlSecondsAfterFinished": 60}})["metadata"]["generation"] == 2


def test_suspend_ends_the_pod_and_resume_brings_it_back(runs: Runs) -> None:
    made = train(runs, "held")
    first = runs.pod(made, "train", 1)["metadata"]["uid"]
    runs.patch(KIND, "held", {"spec": {"suspend": True}})
    runs.wait(KIND, "held", "Suspended")
    eventually(
        lambda: not [name for name in runs.children(made) if name.startswith("pods") and "train" in name]
    )
    runs.patch(KIND, "held", {"spec": {"suspend": False}})
    runs.wait(KIND, "held", "Training")
    assert runs.pod(made, "train", 1)["metadata"]["uid"] != first
    runs.finish(made, "train", 1, 0, success("train"))
    assert runs.wait(KIND, "held", "Succeeded")["attempts"] == 2


def test_an_operator_that_was_killed_goes_on_in_every_phase(
    runs: Runs, operator: RestartableOperator
) -> None:
    made = {name: begin(runs, name) for name in ("prepares",)}
    made |= {name: train(runs, name) for name in ("trains", "held", "retries", "ends", "fails")}
    runs.patch(KIND, "held", {"spec": {"suspend": True}})
    runs.wait(KIND, "held", "Suspended")
    runs.finish(made["retries"], "train", 1, ExitCode.INFRASTRUCTURE)
    runs.wait_for_reason(KIND, "retries", "Retrying")
    operator.kill()
    made["new"] = runs.create(job(), "new")
    runs.finish(made["prepares"], "prepare", 1, 0, success("prepare"))
    runs.finish(made["trains"], "train", 1, ExitCode.INFRASTRUCTURE)
    runs.finish(made["ends"], "train", 1, 0, success("train"))
    runs.finish(made["fails"], "train", 1, ExitCode.DATA_ERROR)
    runs.patch(KIND, "held", {"spec": {"suspend": False}})
    operator.start()
    runs.wait(KIND, "new", "Preparing")
    runs.pod(made["prepares"], "train", 1)
    runs.pod(made["held"], "train", 1)
    runs.wait(KIND, "ends", "Succeeded")
    runs.wait(KIND, "fails", "Failed")
    for name in ("trains", "retries"):
        runs.finish(made[name], "train", 2, 0, success("train"))
        assert runs.wait(KIND, name, "Succeeded")["attempts"] == 3


def test_wiped_status_comes_back_from_the_records(runs: Runs, operator: RestartableOperator) -> None:
    trains, held = train(runs, "trains"), train(runs, "held")
    good = train(runs, "good", ttlSecondsAfterFinished=0, evaluation=EVALUATION)
    bad = begin(runs, "bad")
    runs.finish(trains, "train", 1, ExitCode.PREEMPTED)
    runs.pod(trains, "train", 2)
    eventually(lambda: runs.status(KIND, "trains")["attempts"] == 3, what="the third attempt in status")
    runs.patch(KIND, "held", {"spec": {"suspend": True}})
    runs.wait(KIND, "held", "Suspended")
    runs.finish(good, "train", 1, 0, success("train"))
    runs.wait(KIND, "good", "Succeeded")
    runs.finish(bad, "prepare", 1, ExitCode.DATA_ERROR, failure("prepare", "DataError", "line 7"))
    runs.wait(KIND, "bad", "Failed")
    eventually(
        lambda: not [name for name in runs.children(good) if not name.startswith("configmaps")], what="TTL"
    )
    names = {"trains": trains, "held": held, "good": good, "bad": bad}
    before = {name: lasting(runs.status(KIND, name)) for name in names}
    children = {name: runs.children(body) for name, body in names.items()}
    operator.kill()
    for name in names:
        runs.wipe_status(KIND, name)
    operator.start()
    for name in names:
        runs.wait_restored(KIND, name, before[name])
        assert runs.children(names[name]) == children[name]


def test_deleted_in_any_phase_nothing_of_it_stays(runs: Runs) -> None:
    names = {
        "prepares": begin(runs, "prepares"),
        "trains": train(runs, "trains"),
        "held": train(runs, "held"),
    }
    names["ends"] = train(runs, "ends", evaluation=EVALUATION)
    runs.patch(KIND, "held", {"spec": {"suspend": True}})
    runs.wait(KIND, "held", "Suspended")
    runs.finish(names["ends"], "train", 1, 0, success("train"))
    runs.wait(KIND, "ends", "Succeeded")
    for name in names:
        runs.delete(KIND, name)
    for name, body in names.items():
        runs.wait_for_no_children(name, body, GARBAGE_SECONDS)
    eventually(lambda: not runs.exists("EvalRun", "ends"), GARBAGE_SECONDS, what="the end of the EvalRun")


def test_a_job_that_is_deleted_and_applied_again_does_not_train_again(runs: Runs) -> None:
    made = train(runs, "again", evaluation=EVALUATION)
    runs.finish(made, "train", 1, 0, success("train"))
    runs.wait(KIND, "again", "Succeeded")
    kept = (
        f"/api/v1/namespaces/{runs.namespace}/configmaps?labelSelector=app.kubernetes.io/managed-by=tunesmith"
    )

    def is_kept() -> bool:
        return any(
            made["metadata"]["uid"] in (item.get("data") or {}) for item in runs.server.api.get(kept)["items"]
        )

    eventually(is_kept, what="the finished work")
    # As `kubectl replace --force` does: the children of the old job may still be there.
    runs.delete(KIND, "again")
    applied = runs.create(job(evaluation=EVALUATION), "again")
    reused = success("prepare").model_copy(update={"reused": made["metadata"]["uid"]})
    runs.finish(applied, "prepare", 1, 0, reused)
    status = runs.wait(KIND, "again", "Succeeded")
    adopted = condition(status, "Adopted")
    assert (adopted["status"], adopted["reason"]) == ("True", "FinishedBefore")
    assert made["metadata"]["uid"] in adopted["message"]
    assert status["artifact"]["digest"] == DIGEST
    jobs = f"/apis/batch/v1/namespaces/{runs.namespace}/jobs"
    owned = f"{jobs}?labelSelector=tunesmith.dev/owner-uid={applied['metadata']['uid']}"
    stages = [
        item["metadata"]["labels"]["tunesmith.dev/stage"] for item in runs.server.api.get(owned)["items"]
    ]
    assert stages == ["prepare"]
