"""The limit that a run reaches first."""

import pytest
from simulation.run_objects import build_job, build_pod, build_record, failed_condition
from simulation.simulated_cluster import DIGEST, START

from tunesmith.api.reasons import RunReason
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.limits import (
    RunLimits,
    budget_seconds_left,
    is_ended_by_limit,
    is_stopping,
    nearest_limit,
)
from tunesmith.decide.run.usage import Usage
from tunesmith_contract.report import Checkpoint

ENDED = Children(records=(build_record(ran_seconds=100.0, gpu_seconds=400.0),))


def test_there_is_no_limit_unless_one_is_set() -> None:
    assert nearest_limit(RunLimits(gpus=4), ENDED, Usage()) is None
    assert nearest_limit(RunLimits(budget_gpu_seconds=10.0, gpus=0), ENDED, Usage()) is None


def test_the_limit_with_the_least_time_left_counts() -> None:
    usage = Usage(active_seconds=50.0, gpu_seconds=200.0)
    limits = RunLimits(deadline_seconds=200.0, budget_gpu_seconds=1000.0, gpus=4)
    nearest = nearest_limit(limits, ENDED, usage)
    assert nearest is not None
    assert (nearest.reason, nearest.seconds_left) == (RunReason.DEADLINE_EXCEEDED, 50.0)
    limits = RunLimits(deadline_seconds=1000.0, budget_gpu_seconds=1000.0, gpus=4)
    nearest = nearest_limit(limits, ENDED, usage)
    assert nearest is not None
    assert (nearest.reason, nearest.seconds_left) == (RunReason.BUDGET_EXHAUSTED, 100.0)


def test_the_failure_names_the_checkpoint_that_is_kept() -> None:
    limit = nearest_limit(RunLimits(deadline_seconds=100.0), ENDED, Usage())
    assert limit is not None
    checkpoint = Checkpoint(step=300, uri="pvc://w/300", digest=DIGEST, time=START)
    assert limit.failure(checkpoint).message.endswith("The checkpoint of step 300 is kept: pvc://w/300.")
    assert limit.failure(None).message.endswith("What it committed is kept.")


@pytest.mark.parametrize(("budget", "seconds"), [(1000.0, 150), (400.0, 1), (None, None)])
def test_pods_of_a_new_gang_get_what_is_left_of_the_budget(budget: float | None, seconds: int | None) -> None:
    assert budget_seconds_left(RunLimits(budget_gpu_seconds=budget, gpus=4), ENDED) == seconds


def test_an_attempt_is_ended_by_the_deadline_of_its_job_or_of_a_pod() -> None:
    assert not is_ended_by_limit(build_job(), [build_pod()])
    assert is_stopping(build_job(spec={"activeDeadlineSeconds": 1}))
    assert is_ended_by_limit(build_job(failed_condition(reason="DeadlineExceeded")), [])
    assert is_ended_by_limit(
        build_job(),
        [build_pod(), build_pod(143, phase="Failed") | {"status": {"reason": "DeadlineExceeded"}}],
    )
