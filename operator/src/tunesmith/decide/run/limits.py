"""How long a run may go on: its deadline, and its budget of GPU time."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.objects import Manifest, condition_of
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Checkpoint, Failure

from .children import Children
from .usage import Usage

#: A pod that its node ended for its age, and the Job that the operator ended, say the same word.
_EXCEEDED = "DeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take, over all its stages and attempts.

    Attributes:
        deadline_seconds: how long pods may run; queued and held time does not count.
        budget_gpu_seconds: GPUs times seconds.
        gpus: GPUs of the stage's pods together.
    """

    deadline_seconds: float | None = None
    budget_gpu_seconds: float | None = None
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit.

    Attributes:
        reason: of what follows when it is reached.
        left: seconds that the stage's pods may go on.
        message: what is said then.
    """

    reason: Reason
    left: float
    message: str

    def failure(self, checkpoint: Checkpoint | None) -> Failure:
        """Why the run ends, and what is kept."""
        kept = (
            f"The checkpoint of step {checkpoint.step} is kept: {checkpoint.uri}."
            if checkpoint
            else "What it committed is kept."
        )
        message = f"{self.message} {kept}"
        return Failure(category=FailureCategory.USER_ERROR, reason=self.reason, message=message)


def nearest_limit(limits: Limits, children: Children, usage: Usage) -> Limit | None:
    """The limit that is reached first; None where there is none.

    Args:
        usage: of the attempt that runs.
    """
    found: list[Limit] = []
    if limits.deadline_seconds is not None:
        left = limits.deadline_seconds - children.active_seconds - usage.active_seconds
        message = f"It was active for longer than activeDeadlineSeconds: {limits.deadline_seconds:g}."
        found.append(Limit(Reason.DEADLINE_EXCEEDED, left, message))
    if limits.budget_gpu_seconds is not None and limits.gpus:
        left = (limits.budget_gpu_seconds - children.gpu_seconds - usage.gpu_seconds) / limits.gpus
        message = f"The budget of {limits.budget_gpu_seconds / 3600:g} GPU hours is used up."
        found.append(Limit(Reason.BUDGET_EXHAUSTED, left, message))
    return min(found, key=lambda limit: limit.left, default=None)


def budget_seconds_left(limits: Limits, children: Children) -> int | None:
    """How long each pod of a new gang may run, at least a second; None without a budget.

    Their nodes see to it, so the budget holds while no operator is there.
    """
    if limits.budget_gpu_seconds is None or not limits.gpus:
        return None
    return max(1, floor((limits.budget_gpu_seconds - children.gpu_seconds) / limits.gpus))


def is_ended_by_limit(job: Manifest, pods: Iterable[Manifest]) -> bool:
    """Whether a limit ended the attempt: the operator by the Job's deadline, or a node by the pod's."""
    if is_stopping(job):
        return True
    return any(pod.get("status", {}).get("reason") == _EXCEEDED for pod in pods)


def is_stopping(job: Manifest) -> bool:
    """Whether the operator has asked the Job to end: a Job is made without a deadline."""
    failed = condition_of(job, "Failed") or {}
    return "activeDeadlineSeconds" in job["spec"] or failed.get("reason") == _EXCEEDED
