"""How an attempt ended: from its Job and pods to a failure with a category, or to its success's report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.objects import Manifest, completion_index, condition_of, job_end, terminated
from tunesmith.manifests.result_config_map import AttemptOutcome
from tunesmith_contract.exit_codes import RETRYABLE, ExitCode, FailureCategory, category_of
from tunesmith_contract.report import Checkpoint, Failure, Outcome, RunReport, parse_report

_LOG_CHARACTERS = 2048
_MESSAGE_CHARACTERS = 2048

#: Reasons of conditions, and what they say of a failure's category.
CATEGORY_REASONS = {
    FailureCategory.USER_ERROR: Reason.USER_ERROR,
    FailureCategory.DATA_ERROR: Reason.DATA_ERROR,
    FailureCategory.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    FailureCategory.COMMUNICATION: Reason.COMMUNICATION,
    FailureCategory.INFRASTRUCTURE: Reason.INFRASTRUCTURE,
}

#: Of several failed pods the first of these counts. These are known by their own word alone, whatever else happened.
_CERTAIN = (FailureCategory.USER_ERROR, FailureCategory.DATA_ERROR, FailureCategory.OUT_OF_MEMORY)

#: kubelet's evictions for want of a resource (a full disk) come back with the pod, so they count as failures; what
#: else it ends (its node shuts down) does not.
_KUBELET = "TerminationByKubelet"
_EVICTED = "Evicted"

#: The Job's own record of what its podFailurePolicy saw, for when the pods are gone.
_JOB_SAW_EXIT_CODE = re.compile(r"failed with exit code (\d+)")
_JOB_SAW_DISRUPTION = "DisruptionTarget"

_HINTS = {
    FailureCategory.USER_ERROR: "The trainer refused what it was told.",
    FailureCategory.DATA_ERROR: "The data can't be used.",
    FailureCategory.OUT_OF_MEMORY: "Memory ran out: ask for more, or write a smaller batchSize or maxLength.",
    FailureCategory.COMMUNICATION: "The training processes lost each other.",
    FailureCategory.INFRASTRUCTURE: "The pod died without a last word.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, before it is judged against the limits."""

    outcome: AttemptOutcome
    reason: str
    report: RunReport | None = None
    failure: Failure | None = None
    checkpoint: Checkpoint | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same input may do better on another attempt."""
        if self.outcome is AttemptOutcome.DISRUPTED:
            return True
        return self.failure is not None and self.failure.category in RETRYABLE


def judge(job: Manifest, pods: Sequence[Manifest], stage: str) -> Ending | None:
    """How the Job ended; None while it is live."""
    end = job_end(job)
    if end is None:
        return None
    kind, condition = end
    pods = sorted(pods, key=completion_index)
    ending = (
        _completed(pods, stage) if kind == "Complete" else _failed(pods, stage, condition.get("message", ""))
    )
    return replace(ending, checkpoint=newest_checkpoint(pods))


def judge_lost(job: Manifest, pods: Sequence[Manifest], stage: str) -> Ending:
    """How a Job ended whose last pods can't be seen to end: by what failed before, or by the loss itself."""
    pods = sorted(pods, key=completion_index)
    failing = condition_of(job, "FailureTarget")
    if failing is not None and any(_failure(pod, stage) for pod in pods):
        return replace(_failed(pods, stage, failing.get("message", "")), checkpoint=newest_checkpoint(pods))
    return disrupted("The pod's node does not answer: the pod is given up.")


def newest_checkpoint(pods: Sequence[Manifest]) -> Checkpoint | None:
    """The newest checkpoint that a pod's last word names."""
    found = [report.checkpoint for pod in pods if (report := _report(pod)) and report.checkpoint]
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def success(pods: Sequence[Manifest], stage: str) -> Ending | None:
    """A success that a pod reports, whatever became of its Job."""
    reports = (report for pod in sorted(pods, key=completion_index) if (report := _report(pod)))
    for report in reports:
        if report.stage == stage and report.outcome is Outcome.SUCCEEDED and has_result(report):
            return Ending(AttemptOutcome.SUCCEEDED, Reason.SUCCEEDED, report=report)
    return None


def disrupted(message: str, exit_code: int | None = None) -> Ending:
    """The attempt was taken away: no fault of its own."""
    failure = Failure(
        category=FailureCategory.INFRASTRUCTURE,
        reason=Reason.DISRUPTED,
        message=message[:_MESSAGE_CHARACTERS],
        exit_code=exit_code,
    )
    return Ending(AttemptOutcome.DISRUPTED, Reason.DISRUPTED, failure=failure)


def failed(failure: Failure, reason: str | None = None) -> Ending:
    """The attempt failed; the reason is the category's unless another is given."""
    return Ending(AttemptOutcome.FAILED, reason or CATEGORY_REASONS[failure.category], failure=failure)


def has_result(report: RunReport) -> bool:
    """Whether a report of success holds what its stage is for."""
    match report.stage:
        case "generate":
            return report.generation is not None
        case "prepare":
            return report.dataset is not None and report.model is not None
        case "train":
            return report.training is not None
        case "generate":
            return report.generation is not None
        case "evaluate":
            return report.evaluation is not None


def _completed(pods: Sequence[Manifest], stage: str) -> Ending:
    if (ending := success(pods, stage)) is not None:
        return ending
    reports = [report for report in map(_report, pods) if report and report.stage == stage]
    first = next((pod for pod in pods if completion_index(pod) == 0), None)
    if any(report.outcome is Outcome.PREEMPTED for report in reports) or not (first and terminated(first)):
        return disrupted("The pod vanished with its report; the next attempt finds what it committed.")
    message = (
        "The pod exited with 0 and left no report in its termination message: "
        "use an image that runs tunesmith_trainer."
    )
    return failed(Failure(category=FailureCategory.USER_ERROR, reason="NoReport", message=message))


def _failed(pods: Sequence[Manifest], stage: str, job_message: str) -> Ending:
    """What failed first, of all that followed from it.

    When one pod of a gang ends, the Job asks the others to stop and they lose their connections: a cause that is
    certain counts before a pod that was taken away, that before a crash, and that before the words of those that
    stopped or lost their partners.
    """
    failures = [failure for pod in pods if (failure := _failure(pod, stage)) is not None]
    certain = [failure for failure in failures if failure.category in _CERTAIN]
    if certain:
        return failed(min(certain, key=lambda failure: _CERTAIN.index(failure.category)))
    if (message := _disruption(pods)) is not None:
        return disrupted(message)
    crashes = [failure for failure in failures if failure.category is FailureCategory.INFRASTRUCTURE]
    if crashes:
        return failed(max(crashes, key=lambda failure: bool(failure.log)))
    if any(_is_preempted(pod) for pod in pods):
        return disrupted("The pod was asked to stop; it saved its state.")
    return failed(failures[0]) if failures else _failed_without_pods(job_message)


def _failed_without_pods(job_message: str) -> Ending:
    seen = _JOB_SAW_EXIT_CODE.search(job_message)
    category = category_of(int(seen[1])) if seen else None
    if seen is None or category is None:
        told = _JOB_SAW_DISRUPTION in job_message or seen is not None
        return disrupted(
            job_message if told else "The pod vanished before it ended: it or its node was removed."
        )
    message = f"{_HINTS[category]} {job_message}"[:_MESSAGE_CHARACTERS]
    return failed(Failure(category=category, reason=category, message=message, exit_code=int(seen[1])))


def _disruption(pods: Sequence[Manifest]) -> str | None:
    """What took a pod away; None when nothing did."""
    targets = (target for pod in pods if (target := _disruption_target(pod)) is not None)
    for target in targets:
        return str(target.get("message") or target.get("reason") or "The pod was taken away.")
    return None


def _disruption_target(pod: Manifest) -> Manifest | None:
    return None if _is_evicted(pod) else condition_of(pod, "DisruptionTarget")


def _is_evicted(pod: Manifest) -> bool:
    """Whether its kubelet ended it for want of a resource."""
    target = condition_of(pod, "DisruptionTarget")
    by_kubelet = target is not None and target.get("reason") == _KUBELET
    return by_kubelet and pod.get("status", {}).get("reason") == _EVICTED


def _is_preempted(pod: Manifest) -> bool:
    end, report = terminated(pod), _report(pod)
    told = report is not None and report.outcome is Outcome.PREEMPTED
    return told or (end is not None and end["exitCode"] == ExitCode.PREEMPTED)


def _failure(pod: Manifest, stage: str) -> Failure | None:
    end, report = terminated(pod), _report(pod)
    exit_code = int(end["exitCode"]) if end else None
    if exit_code == 0 or (end is None and pod.get("status", {}).get("phase") != "Failed"):
        return None
    if report is not None and report.stage == stage and report.failure is not None:
        return report.failure.model_copy(update={"exit_code": exit_code})
    if not _is_evicted(pod) and (_is_preempted(pod) or _disruption_target(pod) is not None):
        return None
    return _failure_without_report(pod, end or {}, exit_code)


def _failure_without_report(pod: Manifest, end: Manifest, exit_code: int | None) -> Failure:
    if end.get("reason") == "OOMKilled":
        category = FailureCategory.OUT_OF_MEMORY
    else:
        code = exit_code if exit_code is not None else ExitCode.INFRASTRUCTURE
        category = category_of(code) or FailureCategory.INFRASTRUCTURE
    told = pod.get("status", {}).get("message") or _HINTS[category]
    where = f" Exit code {exit_code}." if exit_code is not None else ""
    return Failure(
        category=category,
        reason=end.get("reason") or pod.get("status", {}).get("reason") or category,
        message=f"{told}{where}"[:_MESSAGE_CHARACTERS],
        exit_code=exit_code,
        log=(end.get("message") or "")[-_LOG_CHARACTERS:],
    )


def _report(pod: Manifest) -> RunReport | None:
    end = terminated(pod)
    return parse_report(end["message"]) if end and end.get("message") else None
