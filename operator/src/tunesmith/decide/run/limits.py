"""Limits of a run: its deadline, and its budget of GPU time."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import condition_of
from tunesmith.manifests.objects import Body
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Checkpoint, Failure

from .children import Children
from .usage import Usage

#: The reason in the status of a pod that its node ended, and of a Job that the operator ended.
_EXCEEDED = "DeadlineExceeded"


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of a run, over all its stages and attempts.

    Attributes:
        deadline_seconds: run time that pods may take; queued and held time does not count.
        budget_gpu_seconds: GPUs times seconds.
        gpus: GPUs of the stage's pods together.
        stopped: cause for which a trial of a search is stopped at once, for people; empty while it is not.
    """

    deadline_seconds: float | None = None
    budget_gpu_seconds: float | None = None
    gpus: int = 0
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and what is left of it.

    Attributes:
        reason: reason of the failure when it is reached.
        seconds_left: run time that is left to the stage's pods.
        message: message of the failure when it is reached.
    """

    reason: RunReason
    seconds_left: float
    message: str

    def failure(self, checkpoint: Checkpoint | None) -> Failure:
        """The failure of a run that reached the limit, with what is kept of it."""
        kept = (
            f"The checkpoint of step {checkpoint.step} is kept: {checkpoint.uri}."
            if checkpoint
            else "What it committed is kept."
        )
        message = f"{self.message} {kept}"
        return Failure(category=FailureCategory.USER_ERROR, reason=self.reason, message=message)


def nearest_limit(limits: RunLimits, children: Children, usage: Usage) -> Limit | None:
    """The limit that is reached first; None where there is none.

    Args:
        usage: usage of the current attempt.
    """
    candidates = [Limit(RunReason.PRUNED, 0.0, limits.stopped)] if limits.stopped else []
    if limits.deadline_seconds is not None:
        seconds_left = limits.deadline_seconds - children.active_seconds - usage.active_seconds
        message = f"The run was active for longer than activeDeadlineSeconds: {limits.deadline_seconds:g}."
        candidates.append(Limit(RunReason.DEADLINE_EXCEEDED, seconds_left, message))
    if limits.budget_gpu_seconds is not None and limits.gpus:
        gpu_seconds_left = limits.budget_gpu_seconds - children.gpu_seconds - usage.gpu_seconds
        message = f"The budget of {limits.budget_gpu_seconds / 3600:g} GPU hours is used up."
        candidates.append(Limit(RunReason.BUDGET_EXHAUSTED, gpu_seconds_left / limits.gpus, message))
    return min(candidates, key=lambda limit: limit.seconds_left, default=None)


def budget_seconds_left(limits: RunLimits, children: Children) -> int | None:
    """Longest run time of each pod of a new gang, at least a second; None without a budget.

    Their nodes enforce it, so the budget holds while no operator runs.
    """
    if limits.budget_gpu_seconds is None or not limits.gpus:
        return None
    return max(1, floor((limits.budget_gpu_seconds - children.gpu_seconds) / limits.gpus))


def is_ended_by_limit(job: Body, pods: Iterable[Body]) -> bool:
    """True when the operator ended the attempt by the Job's deadline, or a node by the pod's."""
    if is_stopping(job):
        return True
    return any(pod.get("status", {}).get("reason") == _EXCEEDED for pod in pods)


def is_stopping(job: Body) -> bool:
    """True when the operator has set the Job's deadline: a Job is made without one."""
    failure = condition_of(job, "Failed") or {}
    return "activeDeadlineSeconds" in job["spec"] or failure.get("reason") == _EXCEEDED
