"""Ending of an attempt: the failure with its category, or the report of success, from its Job and pods."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import (
    completion_index,
    condition_of,
    created_at,
    job_end,
    parse_time,
    terminated,
)
from tunesmith.manifests.objects import Body, deletion_requested_at
from tunesmith.manifests.result_config_map import AttemptOutcome
from tunesmith_contract.exit_codes import RETRYABLE, ExitCode, FailureCategory, category_of
from tunesmith_contract.report import Checkpoint, Failure, Outcome, RunReport, parse_report
from tunesmith_contract.stages import Stage

_LOG_CHARACTERS = 2048
_MESSAGE_CHARACTERS = 2048

#: Reasons of conditions by the failure's category.
CATEGORY_REASONS = {
    FailureCategory.USER_ERROR: RunReason.USER_ERROR,
    FailureCategory.DATA_ERROR: RunReason.DATA_ERROR,
    FailureCategory.OUT_OF_MEMORY: RunReason.OUT_OF_MEMORY,
    FailureCategory.COMMUNICATION: RunReason.COMMUNICATION,
    FailureCategory.INFRASTRUCTURE: RunReason.INFRASTRUCTURE,
    FailureCategory.INTERNAL_ERROR: RunReason.INTERNAL_ERROR,
}

#: Causes that no other failure or disruption can bring about; of several failed pods the first in this order counts.
_ROOT_CAUSES = (
    FailureCategory.USER_ERROR,
    FailureCategory.DATA_ERROR,
    FailureCategory.OUT_OF_MEMORY,
    FailureCategory.INTERNAL_ERROR,
)

#: Evictions by kubelet for a short resource (a full disk) recur with the pod, so they count as failures; its other
#: terminations (its node shuts down) do not.
_KUBELET = "TerminationByKubelet"
_EVICTED = "Evicted"

#: Exit codes of pods that are told to stop: by SIGKILL after their grace period, or by a SIGTERM that nobody handles.
_STOPPED = frozenset({137, 143})
_OUT_OF_MEMORY = "OOMKilled"

#: Parts of the message that the podFailurePolicy leaves in the Job, for when the pods are gone.
_JOB_EXIT_CODE = re.compile(r"failed with exit code (\d+)")
_JOB_DISRUPTION = "DisruptionTarget"

_HINTS = {
    FailureCategory.USER_ERROR: "The trainer refused its configuration.",
    FailureCategory.DATA_ERROR: "The data can't be used.",
    FailureCategory.OUT_OF_MEMORY: "Memory ran out: ask for more, or write a smaller batchSize or maxLength.",
    FailureCategory.COMMUNICATION: "The training processes lost each other.",
    FailureCategory.INFRASTRUCTURE: "The pod died without a report.",
    FailureCategory.INTERNAL_ERROR: "Tunesmith itself failed: see the pod's log, and report it.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Outcome of an attempt, before the limits on retries are applied."""

    outcome: AttemptOutcome
    reason: str
    report: RunReport | None = None
    failure: Failure | None = None
    checkpoint: Checkpoint | None = None

    @property
    def retryable(self) -> bool:
        """True where the same input may do better on another attempt."""
        if self.outcome is AttemptOutcome.DISRUPTED:
            return True
        return self.failure is not None and self.failure.category in RETRYABLE


def job_ending(job: Body, pods: Sequence[Body], stage: Stage) -> Ending | None:
    """Ending of the Job; None while it is live."""
    end = job_end(job)
    if end is None:
        return None
    outcome, condition = end
    pods = sorted(pods, key=completion_index)
    message = condition.get("message", "")
    if outcome == "Complete":
        return replace(_completed(pods, stage), checkpoint=newest_checkpoint(pods))
    succeeded = reported_success(pods, stage) if _all_trainers_succeeded(job, pods) else None
    ending = succeeded or _failed(job, pods, stage, message)
    return replace(ending, checkpoint=newest_checkpoint(pods))


def trainers_ending(job: Body, pods: Sequence[Body], stage: Stage) -> Ending:
    """Ending of a live Job whose trainers have ended, in pods that other containers keep alive."""
    pods = sorted(pods, key=completion_index)
    succeeded = _all_trainers_succeeded(job, pods)
    ending = _completed(pods, stage) if succeeded else _failed(job, pods, stage, "")
    return replace(ending, checkpoint=newest_checkpoint(pods))


def lost_pod_ending(job: Body, pods: Sequence[Body], stage: Stage) -> Ending:
    """Ending of a Job whose last pods do not end, as far as can be seen: an earlier failure, or the loss itself."""
    pods = sorted(pods, key=completion_index)
    failing = condition_of(job, "FailureTarget")
    if failing is not None and any(_failure(pod, stage) for pod in pods):
        message = failing.get("message", "")
        return replace(_failed(job, pods, stage, message), checkpoint=newest_checkpoint(pods))
    return disrupted("The pod's node does not answer, and the pod does not end.")


def deleted_job_ending(pods: Sequence[Body], stage: Stage) -> Ending:
    """Ending of an attempt whose Job somebody deleted: what its pods told before, or a disruption."""
    pods = sorted(pods, key=completion_index)
    if (succeeded := reported_success(pods, stage)) is not None:
        return succeeded
    ending = _failed({}, pods, stage, "")
    if ending.outcome is AttemptOutcome.DISRUPTED:
        ending = disrupted(
            "The Job of the attempt was deleted; the next one resumes from what was committed."
        )
    return replace(ending, checkpoint=newest_checkpoint(pods))


def newest_checkpoint(pods: Sequence[Body]) -> Checkpoint | None:
    """The newest checkpoint in the pods' reports."""
    checkpoints = [report.checkpoint for pod in pods if (report := _report(pod)) and report.checkpoint]
    return max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)


def reported_success(pods: Sequence[Body], stage: Stage) -> Ending | None:
    """Success by the report of a pod, even if its Job failed."""
    reports = (report for pod in sorted(pods, key=completion_index) if (report := _report(pod)))
    for report in reports:
        if report.stage is stage and report.outcome is Outcome.SUCCEEDED and has_result(report):
            return Ending(AttemptOutcome.SUCCEEDED, RunReason.SUCCEEDED, report=report)
    return None


def disrupted(message: str) -> Ending:
    """Ending of an attempt that was disrupted from outside, such as by eviction or a lost node."""
    failure = Failure(
        category=FailureCategory.INFRASTRUCTURE,
        reason=RunReason.DISRUPTED,
        message=message[:_MESSAGE_CHARACTERS],
    )
    return Ending(AttemptOutcome.DISRUPTED, RunReason.DISRUPTED, failure=failure)


def failed(failure: Failure, reason: str | None = None) -> Ending:
    """Ending of an attempt that failed; the reason is the category's unless another is given."""
    return Ending(AttemptOutcome.FAILED, reason or CATEGORY_REASONS[failure.category], failure=failure)


def has_result(report: RunReport) -> bool:
    """True for a report that holds the result of its stage."""
    match report.stage:
        case Stage.GENERATE:
            return report.generation is not None
        case Stage.PREPARE:
            return report.dataset is not None and report.model is not None
        case Stage.TRAIN:
            return report.training is not None
        case Stage.EVALUATE:
            return report.evaluation is not None
        case _:
            assert_never(report.stage)


def _completed(pods: Sequence[Body], stage: Stage) -> Ending:
    if (ending := reported_success(pods, stage)) is not None:
        return ending
    reports = [report for report in map(_report, pods) if report and report.stage is stage]
    first = next((pod for pod in pods if completion_index(pod) == 0), None)
    if any(report.outcome is Outcome.PREEMPTED for report in reports) or not (first and terminated(first)):
        return disrupted(
            "The pod was removed with its report; the next attempt resumes from what it committed."
        )
    message = (
        "The pod exited with 0 and left no report in its termination message: "
        "use an image that runs tunesmith_trainer."
    )
    return failed(Failure(category=FailureCategory.USER_ERROR, reason="NoReport", message=message))


def _all_trainers_succeeded(job: Body, pods: Sequence[Body]) -> bool:
    """True where the trainers of all pods exited with 0; the Job may have failed for a container beside one."""
    ends = [terminated(pod) for pod in _newest_of_each_index(pods)]
    complete = len(ends) == job["spec"].get("parallelism", 1)
    return complete and all(end is not None and end["exitCode"] == ExitCode.SUCCEEDED for end in ends)


def _failed(job: Body, pods: Sequence[Body], stage: Stage, job_message: str) -> Ending:
    """The first cause among the endings of all pods.

    When one pod of a gang ends, the Job deletes the others, and they lose their connections. So the order is: a root
    cause, a disruption, a crash, and last the reports of pods that stopped or lost their partners. A pod that somebody
    deleted is a disruption however it ended, and a pod that the Job deleted is none.
    """
    pods = _newest_of_each_index(pods)
    deleted = _Deletions.of(job, pods, stage)
    failures = [failure for pod in deleted.others if (failure := _failure(pod, stage)) is not None]
    root_causes = [failure for failure in failures if failure.category in _ROOT_CAUSES]
    if root_causes:
        return failed(min(root_causes, key=lambda failure: _ROOT_CAUSES.index(failure.category)))
    if (unseen := _root_cause_of_unseen_pod(pods, job_message)) is not None:
        return unseen
    for pod in pods:
        if (target := _disruption_target(pod)) is not None:
            return disrupted(str(target.get("message") or target.get("reason") or "The pod was taken away."))
    if deleted.by_others:
        return disrupted(_describe_deletion(deleted.by_others[0]))
    crashes = [failure for failure in failures if failure.category is FailureCategory.INFRASTRUCTURE]
    if crashes:
        return failed(max(crashes, key=lambda failure: bool(failure.log)))
    if any(_is_preempted(pod) for pod in pods if pod not in deleted.by_job):
        return disrupted("The pod was asked to stop; it saved its state.")
    return failed(failures[0]) if failures else _failed_without_pods(job_message)


@dataclass(frozen=True, slots=True)
class _Deletions:
    """Pods of a failed Job by who deleted them before they had ended.

    Attributes:
        by_others: somebody or something else than the Job, the first one first; the cause of what the rest did.
        by_job: the Job, because another pod had failed.
        others: all but those that others deleted.
    """

    by_others: tuple[Body, ...]
    by_job: tuple[Body, ...]
    others: tuple[Body, ...]

    @classmethod
    def of(cls, job: Body, pods: Sequence[Body], stage: Stage) -> "_Deletions":
        """Deletions that the Job made when it had begun to fail, told from those before.

        A Job fails only after a pod has failed. If none has but deleted ones, not all of them were deleted by the Job,
        whatever the clocks say.
        """
        deleted = sorted(filter(_was_deleted_before_its_end, pods), key=_requested)
        failing = condition_of(job, "FailureTarget") or {}
        since = parse_time(failing.get("lastTransitionTime"))
        by_itself = any(pod not in deleted and _failure(pod, stage) is not None for pod in pods)

        def is_by_job(pod: Body) -> bool:
            return by_itself and (since is None or _requested(pod) >= since)

        by_job = tuple(pod for pod in deleted if is_by_job(pod))
        by_others = tuple(pod for pod in deleted if pod not in by_job)
        return cls(by_others, by_job, tuple(pod for pod in pods if pod not in by_others))


def _requested(deleted_pod: Body) -> datetime:
    requested = deletion_requested_at(deleted_pod)
    assert requested is not None
    return requested


def _was_deleted_before_its_end(pod: Body) -> bool:
    """True for a pod that had not ended when its deletion was requested; its end may be unseen or unknown."""
    requested, end = deletion_requested_at(pod), terminated(pod)
    if requested is None or _is_evicted(pod) or (end is not None and end["exitCode"] == ExitCode.SUCCEEDED):
        return False
    finished = parse_time(end.get("finishedAt")) if end else None
    return finished is None or requested <= finished


def _describe_deletion(pod: Body) -> str:
    if _is_preempted(pod):
        return "The pod was asked to stop; it saved its state."
    end = terminated(pod)
    code = f" with exit code {end['exitCode']}" if end else ""
    name = pod["metadata"]["name"]
    return f"Pod {name} was deleted and ended{code}; the next attempt resumes from what was committed."


def _newest_of_each_index(pods: Sequence[Body]) -> list[Body]:
    """The last pod of each index: a Job that was suspended had others before."""
    newest: dict[int, Body] = {}
    for pod in sorted(pods, key=created_at):
        newest[completion_index(pod)] = pod
    return [newest[index] for index in sorted(newest)]


def _root_cause_of_unseen_pod(pods: Sequence[Body], job_message: str) -> Ending | None:
    """Root cause that the Job saw in a pod that is gone; None if the pod is here, or if it saw another cause."""
    match = _JOB_EXIT_CODE.search(job_message)
    code = int(match[1]) if match else None
    if code is None or category_of(code) not in _ROOT_CAUSES:
        return None
    seen = {end["exitCode"] for pod in pods if (end := terminated(pod))}
    return None if code in seen else _failed_without_pods(job_message)


def _failed_without_pods(job_message: str) -> Ending:
    match = _JOB_EXIT_CODE.search(job_message)
    category = category_of(int(match[1])) if match else None
    if match is None or category is None:
        job_knows_cause = match is not None or _JOB_DISRUPTION in job_message
        removed = "The pod was removed before it ended, or its node was."
        return disrupted(job_message if job_knows_cause else removed)
    message = f"{_HINTS[category]} {job_message}"[:_MESSAGE_CHARACTERS]
    return failed(Failure(category=category, reason=category, message=message, exit_code=int(match[1])))


def _disruption_target(pod: Body) -> Body | None:
    """DisruptionTarget condition of a disrupted pod; None for one that its kubelet evicted."""
    return None if _is_evicted(pod) else condition_of(pod, "DisruptionTarget")


def _is_evicted(pod: Body) -> bool:
    """True for a pod that its kubelet evicted because a resource was short."""
    target = condition_of(pod, "DisruptionTarget")
    by_kubelet = target is not None and target.get("reason") == _KUBELET
    return by_kubelet and pod.get("status", {}).get("reason") == _EVICTED


def _is_preempted(pod: Body) -> bool:
    end, report = terminated(pod), _report(pod)
    reported = report is not None and report.outcome is Outcome.PREEMPTED
    return reported or (end is not None and end["exitCode"] == ExitCode.PREEMPTED)


def _failure(pod: Body, stage: Stage) -> Failure | None:
    end, report = terminated(pod), _report(pod)
    exit_code = int(end["exitCode"]) if end else None
    if exit_code == 0 or (end is None and pod.get("status", {}).get("phase") != "Failed"):
        return None
    if report is not None and report.stage is stage and report.failure is not None:
        return report.failure.model_copy(update={"exit_code": exit_code})
    if not _is_evicted(pod) and (_is_preempted(pod) or _disruption_target(pod) is not None):
        return None
    if _was_deleted_before_its_end(pod) and (end is None or _was_stopped(end)):
        return None
    return _failure_without_report(pod, end or {}, exit_code)


def _was_stopped(end: Body) -> bool:
    """True for a container that ended by the signals that a pod is stopped with."""
    return end["exitCode"] in _STOPPED and end.get("reason") != _OUT_OF_MEMORY


def _failure_without_report(pod: Body, end: Body, exit_code: int | None) -> Failure:
    if end.get("reason") == _OUT_OF_MEMORY:
        category = FailureCategory.OUT_OF_MEMORY
    else:
        code = exit_code if exit_code is not None else ExitCode.INFRASTRUCTURE
        category = category_of(code) or FailureCategory.INFRASTRUCTURE
    status = pod.get("status", {})
    message = status.get("message") or _HINTS[category]
    if exit_code is not None:
        message = f"{message} Exit code {exit_code}."
    return Failure(
        category=category,
        reason=end.get("reason") or status.get("reason") or category,
        message=message[:_MESSAGE_CHARACTERS],
        exit_code=exit_code,
        log=(end.get("message") or "")[-_LOG_CHARACTERS:],
    )


def _report(pod: Body) -> RunReport | None:
    end = terminated(pod)
    return parse_report(end["message"]) if end and end.get("message") else None
