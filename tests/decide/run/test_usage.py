"""Run time and GPU time of pods, also across a suspension."""

from simulation.run_objects import COMPLETE, after, build_job, build_pod
from simulation.simulated_cluster import DIGEST, START

from tunesmith.decide.run.usage import (
    USED_ANNOTATION,
    Usage,
    charged_gpu_seconds,
    is_active,
    measure_usage,
    saved_usage,
)
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Checkpoint, Failure


def test_pods_that_run_together_count_once_for_time_and_each_for_gpus() -> None:
    pods = [build_pod(0, ended_after=60), build_pod(0, index=1, ended_after=100)]
    usage = measure_usage(build_job(spec={"parallelism": 2}), pods, 2.0, after(150))
    assert (usage.active_seconds, usage.gpu_seconds) == (100.0, 320.0)


def test_a_running_pod_counts_until_now_and_a_waiting_one_not_at_all() -> None:
    waiting = build_pod(index=1)
    del waiting["status"]["startTime"]
    waiting["status"]["containerStatuses"] = []
    usage = measure_usage(build_job(), [build_pod(), waiting], 1.0, after(30))
    assert (usage.active_seconds, usage.gpu_seconds) == (30.0, 30.0)


def test_pods_of_an_ended_job_that_were_never_seen_count_as_long_as_the_job() -> None:
    usage = measure_usage(build_job(COMPLETE, ended_after=80, spec={"parallelism": 2}), [], 1.0, after(500))
    assert (usage.active_seconds, usage.gpu_seconds) == (80.0, 160.0)


def test_saved_usage_counts_and_what_came_before_it_does_not_count_twice() -> None:
    job = build_job()
    saved = Usage(active_seconds=40.0, gpu_seconds=80.0, until=after(40))
    job["metadata"]["annotations"] = {USED_ANNOTATION: saved.to_annotation()}
    assert saved_usage(job) == saved
    usage = measure_usage(job, [build_pod()], 2.0, after(50))
    assert (usage.active_seconds, usage.gpu_seconds) == (50.0, 100.0)


def test_gpus_that_could_not_be_used_cost_what_was_used_before_a_suspension_alone() -> None:
    def failure(reason: str) -> Failure:
        return Failure(category=FailureCategory.INFRASTRUCTURE, reason=reason, message="")

    job, usage = build_job(), Usage(active_seconds=70.0, gpu_seconds=140.0)
    assert charged_gpu_seconds(usage, job, None, None) == 140.0
    assert charged_gpu_seconds(usage, job, failure("DeviceError"), None) == 140.0
    assert charged_gpu_seconds(usage, job, failure("NoGPU"), None) == 0.0
    assert charged_gpu_seconds(usage, None, failure("NoGPU"), None) == 0.0
    checkpoint = Checkpoint(step=30, uri="pvc://w/30", digest=DIGEST, time=START)
    assert charged_gpu_seconds(usage, job, failure("NoGPU"), checkpoint) == 140.0
    saved = Usage(active_seconds=40.0, gpu_seconds=80.0, until=after(40))
    job["metadata"]["annotations"] = {USED_ANNOTATION: saved.to_annotation()}
    assert charged_gpu_seconds(usage, job, failure("FaultyGPU"), None) == 80.0


def test_an_annotation_that_somebody_broke_counts_as_none() -> None:
    job = build_job()
    for text in ("", "{}", '{"active": "x", "gpu": 1, "until": null}'):
        job["metadata"]["annotations"] = {USED_ANNOTATION: text}
        assert saved_usage(job) == Usage()


def test_a_pod_is_active_from_its_start_to_its_end() -> None:
    assert is_active(build_pod())
    assert not is_active(build_pod(0))
    assert not is_active(build_pod(phase="Failed"))
