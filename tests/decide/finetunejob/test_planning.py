"""A FineTuneJob's way from first sight to its end, step by step."""

import json
from datetime import timedelta
from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, EVALUATION, START, UID, failure, fine_tune_job, success
from simulation.training_world import World, created, preempted, training, world

from tunesmith.decide.finetunejob.observed import LiveProgress, RelatedObjects
from tunesmith.decide.plan import Delete, Patch, Plan
from tunesmith.decide.run.attempts import MAX_DISRUPTIONS
from tunesmith.decide.run.patience import CORRECTION_TIME
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.progress import (
    CHECKPOINT_STEP,
    KERNELS,
    OVERFITTING_STEP,
    ProgressMetric,
    TrainerStatus,
)
from tunesmith_contract.run_config import TrainConfig, parse_run_config


def test_first_sight_snapshots_the_inputs_and_prepares() -> None:
    cluster = World(fine_tune_job())
    plan = cluster.reconcile()
    assert created(plan) == ["expenses-0f3c9d-inputs", "expenses-0f3c9d-prepare-1"]
    assert cluster.status["phase"] == "Preparing"
    assert cluster.status["startTime"] == "2030-01-01T00:00:00Z"
    assert (cluster.condition("Ready")["status"], cluster.condition("Reconciling")["status"]) == (
        "Unknown",
        "True",
    )
    assert all(item["observedGeneration"] == 1 for item in cluster.status["conditions"])


def test_prepared_data_is_in_status_and_every_auto_is_a_number() -> None:
    cluster = world()
    plan = cluster.succeed("prepare")
    assert created(plan) == [
        "expenses-0f3c9d-result-prepare-1",
        "expenses-0f3c9d-run",
        "expenses-0f3c9d-train-1",
    ]
    assert cluster.status["phase"] == "Training"
    assert cluster.status["dataset"]["trainRows"] == 540
    assert cluster.condition("DataReady")["status"] == "True"
    assert cluster.status["resolved"] == {
        "baseModelRevision": "r1",
        "datasetDigest": DIGEST,
        "image": "trainer:1",
        "learningRate": "0.00017",
        "batchSize": 2,
        "microBatchSize": 1,
        "packing": True,
        "parallelism": "DDP",
        "offload": "None",
        "activationCheckpointing": False,
        "baseModel": "pvc://models/tiny",
        "parameters": 10,
        "requests": {"cpu": "3", "memory": "7Gi"},
    }
    run = parse_run_config(cluster.objects[("ConfigMap", "expenses-0f3c9d-run")]["data"]["run.json"])
    assert isinstance(run, TrainConfig)
    assert run.dataset_digest == DIGEST


def test_success_names_the_artifact() -> None:
    cluster = training()
    cluster.pass_time(60)
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]["digest"] == DIGEST
    assert cluster.status["cost"] == {"gpuSeconds": "60"}
    assert cluster.status["completionTime"] == "2030-01-01T00:01:00Z"
    assert cluster.status["progress"]["percent"] == "100%"
    states = {
        kind: cluster.condition(kind)["status"] for kind in ("Ready", "Succeeded", "Trained", "Stalled")
    }
    assert states == {"Ready": "True", "Succeeded": "True", "Trained": "True", "Stalled": "False"}
    assert cluster.events == ["Preparing", "Prepared", "Training", "Trained"]


def test_nothing_is_left_to_do_after_the_end() -> None:
    cluster = training()
    cluster.succeed("train")
    before = cluster.status
    cluster.pass_time(10**6)
    plan = cluster.reconcile()
    assert (plan.actions, plan.status, plan.requeue_after) == ((), before, None)


@pytest.mark.parametrize(
    ("code", "category", "reason"),
    [
        (ExitCode.USER_ERROR, "UserError", "UserError"),
        (ExitCode.DATA_ERROR, "DataError", "DataError"),
        (ExitCode.OUT_OF_MEMORY, "OutOfMemory", "OutOfMemory"),
        (ExitCode.INTERNAL_ERROR, "InternalError", "InternalError"),
    ],
)
def test_what_no_retry_can_cure_fails_at_once(code: int, category: str, reason: str) -> None:
    cluster = world()
    cluster.end(code, failure("prepare", category, "rows.jsonl line 7: missing_content"))
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"] == {
        "category": category,
        "reason": "Check",
        "message": "rows.jsonl line 7: missing_content",
        "exitCode": code,
        "log": "",
    }
    assert cluster.condition("Stalled")["status"] == "True"
    assert (cluster.condition("Ready")["status"], cluster.condition("Ready")["reason"]) == ("False", reason)
    assert cluster.condition("DataReady")["status"] == "False"
    assert not cluster.live_jobs()


@pytest.mark.parametrize("code", [ExitCode.COMMUNICATION, ExitCode.INFRASTRUCTURE, 1, 137])
def test_what_may_pass_is_tried_again_within_the_limit_and_ever_later(code: int) -> None:
    cluster = training(backoffLimit=2)
    waits = []
    for attempt in (1, 2):
        plan = cluster.end(code)
        assert cluster.status["phase"] == "Training"
        assert cluster.condition("Ready")["reason"] == "Retrying"
        assert plan.requeue_after is not None
        waits.append(plan.requeue_after)
        assert not cluster.live_jobs()
        cluster.pass_time(plan.requeue_after)
        assert created(cluster.reconcile()) == [f"expenses-0f3c9d-train-{attempt + 1}"]
    cluster.end(code)
    assert waits == [10, 20]
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BackoffLimitExceeded"
    assert cluster.status["failure"]["exitCode"] == code
    assert cluster.status["attempts"] == 4


def test_a_killed_container_ran_out_of_memory() -> None:
    cluster = training(method={"sft": {"maxLength": 256, "packing": False}})
    job = cluster.job()
    cluster.finish(job, 137, "Epoch 1 ...")
    cluster.pod_of(job)["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    cluster.reconcile()
    assert cluster.condition("Ready")["reason"] == "Retrying"
    record = json.loads(
        cluster.objects[("ConfigMap", "expenses-0f3c9d-result-train-1")]["data"]["record.json"]
    )
    assert record["failure"]["category"] == "OutOfMemory"
    assert record["failure"]["log"] == "Epoch 1 ..."


def test_disruptions_do_not_count_against_the_limit_but_are_bounded() -> None:
    cluster = training(backoffLimit=0)
    for _ in range(MAX_DISRUPTIONS - 1):
        plan = cluster.end(ExitCode.PREEMPTED)
        assert cluster.status["phase"] == "Training"
        cluster.pass_time(plan.requeue_after or 0)
        cluster.reconcile()
    assert cluster.status["disruptions"] == MAX_DISRUPTIONS - 1
    cluster.end(ExitCode.PREEMPTED)
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "TooManyDisruptions"


def test_a_disrupted_pod_is_no_fault_of_its_own() -> None:
    cluster = training(backoffLimit=0)
    job = cluster.job()
    cluster.finish(job, 137)
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "for x",
    }
    cluster.pod_of(job)["status"]["conditions"] = [target]
    cluster.reconcile()
    assert cluster.condition("Ready")["reason"] == "Disrupted"
    assert "for x" in cluster.condition("Ready")["message"]


def test_kubelets_own_eviction_counts() -> None:
    cluster = training(backoffLimit=0)
    job = cluster.job()
    cluster.finish(job, 137)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    cluster.pod_of(job)["status"] |= {"conditions": [target], "reason": "Evicted", "message": "low on disk"}
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert "low on disk" in cluster.status["failure"]["message"]


def test_a_node_that_shuts_down_is_no_fault_of_the_pod() -> None:
    cluster = training(backoffLimit=0)
    job = cluster.job()
    cluster.finish(job, 137)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    cluster.pod_of(job)["status"] |= {"conditions": [target], "reason": "Terminated"}
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["disruptions"]) == ("Training", 1)


def test_a_pod_that_is_gone_leaves_what_its_job_saw() -> None:
    cluster = training()
    cluster.finish(cluster.job(), ExitCode.DATA_ERROR)
    del cluster.objects[("Pod", "expenses-0f3c9d-train-1")]
    cluster.reconcile()
    assert cluster.status["failure"]["category"] == "DataError"
    lost = training()
    lost.lose_pod(lost.job())
    lost.reconcile()
    assert (lost.status["phase"], lost.status["disruptions"]) == ("Training", 1)


def test_success_without_a_report_is_the_images_fault() -> None:
    cluster = world()
    cluster.end(0, "all went well")
    assert cluster.status["failure"]["reason"] == "NoReport"


def test_suspend_holds_the_job_and_resume_lets_the_same_attempt_go_on() -> None:
    cluster = training()
    cluster.resource["spec"]["suspend"] = True
    cluster.reconcile()
    cluster.reconcile()
    assert cluster.status["phase"] == "Suspended"
    assert cluster.job()["spec"]["suspend"] is True
    assert not [pod for pod in cluster.children("Pod") if "train" in pod["metadata"]["name"]]
    cluster.resource["spec"]["suspend"] = False
    cluster.reconcile()
    assert cluster.job()["spec"]["suspend"] is False
    assert cluster.status["phase"] == "Training"
    assert cluster.status["attempts"] == 2
    assert cluster.events[-2:] == ["Suspended", "Resumed"]


def test_suspended_from_the_start_makes_nothing_but_the_snapshot() -> None:
    cluster = world(suspend=True)
    assert [name for _, name in cluster.objects] == ["expenses-0f3c9d-inputs"]
    assert cluster.status["phase"] == "Suspended"


def test_a_queue_alone_may_hold_its_job() -> None:
    cluster = World(fine_tune_job())
    cluster.resource["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    cluster.reconcile()
    cluster.job()["spec"]["suspend"] = True
    cluster.reconcile()
    assert cluster.status["phase"] == "Queued"
    assert cluster.job()["spec"]["suspend"] is True
    cluster.job()["spec"]["suspend"] = False
    cluster.resource["spec"]["suspend"] = True
    cluster.reconcile()
    assert "is suspended through its queue" in cluster.condition("Ready")["message"]
    assert cluster.job()["spec"]["suspend"] is False


def test_the_deadline_ends_it_gently_whatever_the_stage() -> None:
    cluster = world(activeDeadlineSeconds=100)
    cluster.pass_time(60)
    plan = cluster.succeed("prepare")
    assert plan.requeue_after is None or plan.requeue_after <= 100
    assert cluster.reconcile().requeue_after == 40
    cluster.pass_time(40)
    plan = cluster.reconcile()
    assert [type(action) for action in plan.actions] == [Patch]
    assert cluster.status["phase"] == "Training"
    cluster.pass_time(30)
    assert not cluster.reconcile().actions
    job = cluster.job()
    cluster.finish_pod(job, ExitCode.PREEMPTED, preempted(40))
    cluster.exceed_deadline(job)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "DeadlineExceeded"
    assert "The checkpoint of step 40 is kept: pvc://" in cluster.status["failure"]["message"]
    assert not cluster.live_jobs()


def test_what_came_to_its_end_within_its_last_grace_has_succeeded() -> None:
    cluster = training(activeDeadlineSeconds=100)
    cluster.pass_time(101)
    cluster.reconcile()
    job = cluster.job()
    cluster.finish_pod(job, 0, success("train"))
    cluster.exceed_deadline(job)
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"


def test_time_held_does_not_count_against_the_deadline() -> None:
    cluster = training(activeDeadlineSeconds=100)
    cluster.resource["spec"]["suspend"] = True
    cluster.reconcile()
    cluster.pass_time(10**5)
    cluster.reconcile()
    cluster.resource["spec"]["suspend"] = False
    cluster.reconcile()
    cluster.pass_time(50)
    cluster.reconcile()
    assert cluster.status["phase"] == "Training"


def _pending(cluster: World, **status: Any) -> None:
    pod = cluster.pod_of(cluster.job())
    pod["status"] = {"phase": "Pending"} | status


def _container(reason: str, message: str = "") -> dict[str, Any]:
    waiting = {"reason": reason, "message": message}
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}]}


MISSING = [
    (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": '0/1 nodes are available: persistentvolumeclaim "models" not found.',
                }
            ]
        },
        "VolumeClaimNotFound",
        'PersistentVolumeClaim "models" does not exist in namespace team: create it, or correct spec.baseModel.uri.',
    ),
    (
        _container("CreateContainerConfigError", 'secret "hub" not found'),
        "SecretNotFound",
        'Secret "hub" does not exist in namespace team: create it, or correct spec.baseModel.secretRef.name.',
    ),
    (
        _container("CreateContainerConfigError", "couldn't find key token in Secret team/hub"),
        "SecretNotFound",
        'Secret "hub" has no key "token": add it.',
    ),
    (
        _container("ImagePullBackOff", "not found"),
        "ImageNotPulled",
        'Image "trainer:1" can\'t be pulled: correct its name, or add imagePullSecrets: not found',
    ),
    (
        _container("ContainerCreating"),
        "ConfigMapNotFound",
        'ConfigMap "rows" does not exist in namespace team: create it, or correct spec.dataset.train.uri.',
    ),
]


@pytest.mark.parametrize(
    ("status", "reason", "message"), MISSING, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_missing_is_named_waited_for_and_then_failed(
    status: dict[str, Any], reason: str, message: str
) -> None:
    hub = {"uri": "pvc://models/tiny", "secretRef": {"name": "hub"}}
    cluster = world(baseModel=hub)
    if reason == "ConfigMapNotFound":
        cluster.related = RelatedObjects(missing_config_maps=("rows",))
    _pending(cluster, **status)
    plan = cluster.reconcile()
    ready = cluster.condition("Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", reason, message)
    assert cluster.status["phase"] == "Preparing"
    assert plan.requeue_after is not None
    cluster.pass_time(CORRECTION_TIME.total_seconds())
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["category"] == "UserError"
    assert cluster.status["failure"]["message"] == message
    assert not cluster.live_jobs()


def test_what_was_missing_may_come_in_time() -> None:
    cluster = world()
    _pending(cluster, **_container("ImagePullBackOff", "not found"))
    cluster.reconcile()
    del cluster.objects[("Pod", "expenses-0f3c9d-prepare-1")]
    cluster.run_job_controller()
    cluster.reconcile()
    assert (cluster.condition("Ready")["status"], cluster.condition("Ready")["reason"]) == (
        "Unknown",
        "Preparing",
    )


def test_a_full_cluster_is_waited_for() -> None:
    cluster = training()
    refused = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
    _pending(cluster, conditions=[refused])
    cluster.pass_time(10**5)
    cluster.reconcile()
    assert cluster.status["phase"] == "Queued"
    assert "Insufficient nvidia.com/gpu" in cluster.condition("Ready")["message"]


def test_a_job_without_a_pod_is_said() -> None:
    cluster = world()
    del cluster.objects[("Pod", "expenses-0f3c9d-prepare-1")]
    cluster.pass_time(60)
    cluster.carry_out(cluster.plan())
    assert cluster.condition("Ready")["reason"] == "PodNotCreated"
    assert "kubectl describe job expenses-0f3c9d-prepare-1" in cluster.condition("Ready")["message"]


def test_a_silent_node_is_given_up() -> None:
    cluster = training()
    gone = START + timedelta(seconds=120)
    cluster.pod_of(cluster.job())["metadata"]["deletionTimestamp"] = gone.isoformat()
    cluster.reconcile()
    assert cluster.status["disruptions"] == 0
    cluster.pass_time(121 + 300)
    cluster.reconcile()
    assert cluster.status["disruptions"] == 1
    assert not cluster.live_jobs()


def test_the_evaluation_is_made_once() -> None:
    cluster = training(evaluation=EVALUATION)
    cluster.succeed("train")
    made = cluster.objects[("EvalRun", "expenses")]
    assert made["spec"]["candidate"] == {"fewShot": 0, "fineTuneJobRef": {"name": "expenses"}}
    assert cluster.status["evalRun"] == "expenses"
    del cluster.objects[("EvalRun", "expenses")]
    cluster.forget_status()
    cluster.reconcile()
    assert ("EvalRun", "expenses") not in cluster.objects
    assert cluster.status["evalRun"] == "expenses"


def test_the_gpu_time_of_its_own_evaluation_is_told() -> None:
    cluster = training(evaluation=EVALUATION)
    cluster.succeed("train")
    assert "evaluationGpuSeconds" not in cluster.status["cost"]
    cluster.objects[("EvalRun", "expenses")]["status"] = {"cost": {"gpuSeconds": "420"}}
    cluster.reconcile()
    assert cluster.status["cost"]["evaluationGpuSeconds"] == "420"
    del cluster.objects[("EvalRun", "expenses")]
    cluster.reconcile()
    assert cluster.status["cost"]["evaluationGpuSeconds"] == "420"


def test_somebody_elses_evaluation_is_left_alone() -> None:
    cluster = training(evaluation=EVALUATION)
    cluster.objects[("EvalRun", "expenses")] = {"kind": "EvalRun", "metadata": {"name": "expenses"}}
    cluster.succeed("train")
    cluster.reconcile()
    assert cluster.events.count("EvalRunNameTaken") == 1
    assert "evalRun" not in cluster.status


def test_ttl_removes_the_jobs_and_nothing_else_once_the_outcome_is_written() -> None:
    cluster = training(ttlSecondsAfterFinished=0)
    plan = cluster.succeed("train")
    assert not [action for action in plan.actions if isinstance(action, Delete)]
    assert plan.requeue_after is not None
    before = cluster.status
    cluster.pass_time(5)
    plan = cluster.reconcile()
    assert len(plan.actions) == 2
    assert all(isinstance(action, Delete) for action in plan.actions)
    assert not cluster.children("Job")
    cluster.forget_status()
    assert not cluster.reconcile().actions
    assert cluster.status["artifact"] == before["artifact"]
    assert cluster.events[-1] == "ChildrenRemoved"


def test_a_changed_spec_reaches_no_run() -> None:
    cluster = world()
    cluster.resource["spec"]["output"] = {"uri": "pvc://elsewhere"}
    cluster.resource["spec"]["hyperparameters"] = {"epochs": 9}
    cluster.succeed("prepare")
    run = parse_run_config(cluster.objects[("ConfigMap", "expenses-0f3c9d-run")]["data"]["run.json"])
    assert isinstance(run, TrainConfig)
    assert (run.output, run.hyperparameters.epochs) == ("pvc://artifacts/team", 3)


def test_a_batch_that_gpus_cannot_share_fails_before_training() -> None:
    cluster = training(compute={"gpusPerNode": 4}, hyperparameters={"batchSize": 6})
    assert cluster.status["failure"]["message"].endswith("write 8, or Auto.")
    assert not cluster.live_jobs()
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


def test_the_outcome_in_status_outlives_lost_records() -> None:
    cluster = training()
    cluster.succeed("train")
    for body in cluster.children("ConfigMap"):
        del cluster.objects[("ConfigMap", body["metadata"]["name"])]
    assert cluster.plan() == Plan()


def test_a_deleted_resource_is_left_to_the_garbage_collector() -> None:
    cluster = training()
    cluster.resource["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert cluster.plan() == Plan()


def test_news_of_the_current_attempt_alone_are_shown() -> None:
    cluster = training()
    metrics = {
        "current_step": "42",
        "total_steps": "100",
        "current_epoch": "1.5",
        "loss": "0.123456789",
        "eval_loss": "x",
    }
    news = TrainerStatus(
        last_updated_time=START,
        progress_percentage=42,
        estimated_remaining_seconds=750,
        metrics=tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items()),
    )
    cluster.progress = LiveProgress("train", 1, news)
    cluster.reconcile()
    assert cluster.status["progress"] == {
        "step": 42,
        "totalSteps": 100,
        "percent": "42%",
        "epoch": "1.5",
        "loss": "0.123457",
        "remaining": "12m30s",
        "lastUpdateTime": "2030-01-01T00:00:00Z",
    }
    last = TrainerStatus(last_updated_time=news.last_updated_time, progress_percentage=100)
    cluster.progress = LiveProgress("train", 1, last)
    cluster.reconcile()
    assert cluster.status["progress"]["step"] == 42
    cluster.progress = LiveProgress("train", 1, news)
    cluster.reconcile()
    cluster.progress = LiveProgress("train", 7, news.model_copy(update={"progress_percentage": 99}))
    cluster.reconcile()
    assert cluster.status["progress"]["percent"] == "42%"


@pytest.mark.parametrize("own", [CHECKPOINT_STEP, OVERFITTING_STEP, KERNELS])
def test_news_of_the_trainer_s_own_leave_what_was_measured(own: str) -> None:
    """A commit is told at once, by an update that says nothing of the loss or of the time left."""
    cluster = training()
    metrics = {
        "current_step": "42",
        "total_steps": "100",
        "current_epoch": "1.5",
        "loss": "0.5",
        "eval_loss": "0.6",
    }

    def news(remaining: int | None, **values: str) -> LiveProgress:
        told = tuple(ProgressMetric(name=name, value=value) for name, value in values.items())
        status = TrainerStatus(
            last_updated_time=START,
            progress_percentage=42,
            estimated_remaining_seconds=remaining,
            metrics=told,
        )
        return LiveProgress("train", 1, status)

    cluster.progress = news(750, **metrics)
    cluster.reconcile()
    before = cluster.status["progress"]
    assert (before["loss"], before["evalLoss"], before["remaining"]) == ("0.5", "0.6", "12m30s")
    cluster.progress = news(None, current_step="43", total_steps="100", **{own: "43"})
    cluster.reconcile()
    assert cluster.status["progress"] == before | {"step": 43}
    cluster.progress = news(None, current_step="44", total_steps="100")
    cluster.reconcile()
    assert "remaining" not in cluster.status["progress"], "any other update says all that it knows"


def test_the_first_step_of_training_is_shown_as_none_done() -> None:
    cluster = training()
    steps = (ProgressMetric(name="current_step", value="0"), ProgressMetric(name="total_steps", value="9"))
    status = TrainerStatus(last_updated_time=START, progress_percentage=0, metrics=steps)
    cluster.progress = LiveProgress("train", 1, status)
    cluster.reconcile()
    assert (cluster.status["progress"]["step"], cluster.status["progress"]["totalSteps"]) == (0, 9)


@pytest.mark.parametrize(("method", "perplexity"), [("pretraining", "7.38906"), ("sft", None)])
def test_a_language_that_is_learned_has_a_perplexity(method: str, perplexity: str | None) -> None:
    cluster = training(method={method: {}})
    metrics = (ProgressMetric(name="eval_loss", value="2"),)
    news = TrainerStatus(last_updated_time=START, progress_percentage=42, metrics=metrics)
    cluster.progress = LiveProgress("train", 1, news)
    cluster.reconcile()
    assert cluster.status["progress"].get("perplexity") == perplexity


def test_children_belong_to_the_job() -> None:
    cluster = training()
    for kind in ("ConfigMap", "Job"):
        for child in cluster.children(kind):
            (owner,) = child["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", UID, True)
    assert all(body["immutable"] for body in cluster.children("ConfigMap"))
