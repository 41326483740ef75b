"""Containers that a service mesh or a secrets agent injects: the trainer's own is found by its name."""

from typing import Any

import pytest
from simulation.run_objects import after, build_job, build_pod, failed_condition, train_stage
from simulation.simulated_cluster import success
from simulation.training_world import World, training

from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import is_running, terminated
from tunesmith.decide.pod_diagnosis import diagnose_pod
from tunesmith.decide.run.attempts import advance
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.endings import job_ending
from tunesmith.decide.run.patience import FAREWELL_TIME
from tunesmith.decide.run.references import References
from tunesmith.decide.run.stage import StageState
from tunesmith.decide.run.usage import is_active
from tunesmith.decide.run.waiting import find_waiting
from tunesmith.manifests.result_config_map import AttemptOutcome
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.stages import Stage

RUNNING = {"running": {"startedAt": "2030-01-01T00:00:00Z"}}
FAREWELL = FAREWELL_TIME.total_seconds()


def inject(pod: Any, state: dict[str, Any] | None = None, name: str = "istio-proxy") -> Any:
    """The pod with a container that stands before the trainer's, as the kubelet sorts them."""
    pod["status"]["containerStatuses"].insert(0, {"name": name, "state": state or RUNNING})
    return pod


def held(exit_code: int, told: bool = True) -> World:
    """A job whose trainer has ended, in a pod that its proxy keeps alive; the Job controller sees no end."""
    cluster = training()
    cluster.pass_time(600)
    job = cluster.job()
    cluster.finish_pod(job, exit_code, success("train") if told and exit_code == 0 else None)
    cluster.pod_of(job)["status"]["phase"] = "Running"
    inject(cluster.pod_of(job))
    cluster.reconcile()
    return cluster


def test_the_state_of_the_pod_is_that_of_the_trainer() -> None:
    ended = inject(build_pod(0, success("train")))
    assert (terminated(ended) or {})["exitCode"] == 0
    assert not is_active(ended)
    assert not is_running(ended)
    begun = inject(build_pod(), {"terminated": {"exitCode": 1}})
    assert terminated(begun) is None
    assert is_running(begun)


def test_a_pod_whose_trainer_has_not_been_reported_does_not_run() -> None:
    pod = build_pod()
    pod["status"]["containerStatuses"] = [{"name": "istio-proxy", "state": RUNNING}]
    assert not is_running(pod)


def test_a_success_is_the_job_s_though_the_pod_lives_on() -> None:
    cluster = held(0)
    assert cluster.condition("Ready")["reason"] == "PodKeptAlive"
    assert (
        'container "istio-proxy" keeps pod "expenses-0f3c9d-train-1" alive'
        in cluster.condition("Ready")["message"]
    )
    assert cluster.status["phase"] == "Training"
    cluster.pass_time(FAREWELL)
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["cost"]["gpuSeconds"] == "600"
    assert not cluster.live_jobs()
    assert ("Pod", "expenses-0f3c9d-train-1") not in cluster.objects


@pytest.mark.parametrize(
    ("code", "phase"), [(ExitCode.DATA_ERROR, "Failed"), (1, "Training"), (ExitCode.PREEMPTED, "Training")]
)
def test_a_failure_is_judged_by_the_trainer_s_exit_code(code: int, phase: str) -> None:
    cluster = held(code)
    cluster.pass_time(FAREWELL)
    cluster.reconcile()
    assert cluster.status["phase"] == phase
    assert not cluster.live_jobs()
    cluster.pass_time(60)
    cluster.reconcile()
    assert len(cluster.live_jobs()) == (phase == "Training")


def test_a_pod_that_ends_by_itself_is_left_to_its_job() -> None:
    cluster = held(0)
    job = cluster.job()
    cluster.finish(job, 0, success("train"))
    cluster.pass_time(FAREWELL)
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"
    assert ("Job", "expenses-0f3c9d-train-1") in cluster.objects


def test_a_job_that_failed_for_its_proxy_alone_has_succeeded() -> None:
    job = build_job(failed_condition(reason="BackoffLimitExceeded"))
    pod = inject(build_pod(0, success("train")), {"terminated": {"exitCode": 137}})
    ending = job_ending(job, [pod], Stage.TRAIN)
    assert ending is not None
    assert ending.outcome is AttemptOutcome.SUCCEEDED


def test_a_gang_of_which_one_pod_has_ended_well_goes_on() -> None:
    job = build_job(spec={"parallelism": 2})
    pods = (inject(build_pod(0, success("train"))), inject(build_pod(index=1)))
    step = advance(train_stage(nodes=2), Children(jobs=(job,), pods=pods), after(10**5))
    assert (step.state, step.waiting) == (StageState.RUNNING, None)


def test_a_gang_of_which_one_pod_has_failed_ends_though_its_proxy_runs() -> None:
    job = build_job(spec={"parallelism": 2})
    pods = (inject(build_pod(ExitCode.DATA_ERROR)), inject(build_pod(index=1)))
    waiting = find_waiting(job, pods, References("team", {}), after(200))
    assert waiting is not None
    assert waiting.reason is RunReason.POD_KEPT_ALIVE


def test_a_pull_error_of_the_trainer_is_told_whatever_else_is_wrong() -> None:
    pod = build_pod()
    pull = {"waiting": {"reason": "ErrImagePull", "message": "trainer:1: not found"}}
    pod["status"]["containerStatuses"][0]["state"] = pull
    crashing = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    inject(pod, crashing)
    pod["spec"]["containers"].insert(0, {"name": "istio-proxy", "image": "proxy:1"})
    waiting = find_waiting(build_job(), [pod], References("team", {}), after(1))
    assert waiting is not None
    assert waiting.reason is RunReason.IMAGE_NOT_PULLED
    assert 'Image "trainer:1"' in waiting.message


def test_a_pull_error_of_an_injected_container_is_told_where_the_trainer_has_none() -> None:
    pull = {"waiting": {"reason": "ImagePullBackOff", "message": "proxy:1: not found"}}
    pod = inject(build_pod(), pull)
    pod["status"]["containerStatuses"][1]["state"] = {"waiting": {"reason": "PodInitializing"}}
    pod["spec"]["containers"].insert(0, {"name": "istio-proxy", "image": "proxy:1"})
    assert diagnose_pod(pod) is not None
    waiting = find_waiting(build_job(), [pod], References("team", {}), after(1))
    assert waiting is not None
    assert 'Image "proxy:1"' in waiting.message
