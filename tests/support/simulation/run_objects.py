"""Jobs, pods and records for tests of the engine that runs Jobs."""

from datetime import datetime, timedelta
from typing import Any

from simulation.simulated_cluster import START, UID, fine_tune_job

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.conditions import timestamp
from tunesmith.decide.run.references import References
from tunesmith.decide.run.stage import StageDefinition
from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL
from tunesmith.manifests.objects import KubernetesObject
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord
from tunesmith_contract.report import RunReport
from tunesmith_contract.stages import Stage

GRACE_SECONDS = 30

COMPLETE = {"type": "Complete", "status": "True"}


def failed_condition(message: str = "", reason: str = "PodFailurePolicy") -> KubernetesObject:
    """The condition of a Job that failed."""
    return {"type": "Failed", "status": "True", "message": message, "reason": reason}


def failure_target(decided_after: float) -> KubernetesObject:
    """The condition of a Job that has decided to fail, and deletes its other pods."""
    return {"type": "FailureTarget", "status": "True", "lastTransitionTime": timestamp(after(decided_after))}


def build_job(
    *conditions: KubernetesObject,
    attempt: int = 1,
    ended_after: float = 100,
    spec: KubernetesObject | None = None,
) -> KubernetesObject:
    """A Job of the train stage that was made and started at START; with conditions it has ended.

    A condition without a time of its own is as old as the end.
    """
    ended_at = timestamp(after(ended_after))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(f"job-{attempt}", attempt),
        "spec": {"parallelism": 1, **(spec or {})},
        "status": {
            "startTime": timestamp(START),
            "conditions": [{"lastTransitionTime": ended_at} | condition for condition in conditions],
        },
    }


def build_pod(
    exit_code: int | None = None,
    report: RunReport | str | None = None,
    *,
    index: int = 0,
    attempt: int = 1,
    reason: str = "Error",
    ended_after: float | None = 100,
    deleted_after: float | None = None,
    conditions: tuple[KubernetesObject, ...] = (),
    **status: Any,
) -> KubernetesObject:
    """A pod of the Job that started at START; without an exit code it still runs.

    Args:
        ended_after: None for an end of which kubelet does not know the time.
        deleted_after: when somebody asked for its deletion, with a grace period of GRACE_SECONDS.
    """
    message = report.to_termination_message().decode() if isinstance(report, RunReport) else report
    state: KubernetesObject = {"running": {"startedAt": timestamp(START)}}
    if exit_code is not None:
        at = None if ended_after is None else timestamp(after(ended_after))
        finished = {"finishedAt": at, "message": message}
        state = {"terminated": {"exitCode": exit_code, "reason": reason, **finished}}
    meta = metadata(f"job-{attempt}-{index}", attempt)
    meta["labels"]["batch.kubernetes.io/job-completion-index"] = str(index)
    if deleted_after is not None:
        meta["deletionTimestamp"] = timestamp(after(deleted_after + GRACE_SECONDS))
        meta["deletionGracePeriodSeconds"] = GRACE_SECONDS
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": "trainer", "image": "trainer:1"}]},
        "status": {
            "startTime": timestamp(START),
            "containerStatuses": [{"name": "trainer", "state": state}],
            "conditions": list(conditions),
            **status,
        },
    }


def metadata(name: str, attempt: int) -> KubernetesObject:
    """Metadata of an object of this attempt of the train stage."""
    return {
        "name": name,
        "namespace": "team",
        "uid": f"uid-of-{name}",
        "creationTimestamp": timestamp(START),
        "labels": {STAGE_LABEL: str(Stage.TRAIN), ATTEMPT_LABEL: str(attempt)},
    }


def after(seconds: float) -> datetime:
    """So many seconds after START."""
    return START + timedelta(seconds=seconds)


def build_record(
    attempt: int = 1,
    outcome: AttemptOutcome = AttemptOutcome.FAILED,
    *,
    ended_after: float = 100,
    **fields: Any,
) -> AttemptRecord:
    """The record of an attempt of the train stage."""
    return AttemptRecord(
        stage=Stage.TRAIN,
        attempt=attempt,
        outcome=outcome,
        reason="Infrastructure",
        ended_at=after(ended_after),
        **fields,
    )


def train_stage(**fields: Any) -> StageDefinition:
    """The train stage of a job, whose attempts are one Job each."""
    owner = FineTuneJob.parse(fine_tune_job() | {"metadata": fine_tune_job()["metadata"] | {"uid": UID}})
    defaults: dict[str, Any] = {
        "owner": owner,
        "name": Stage.TRAIN,
        "build": lambda attempt, _: (build_job(attempt=attempt),),
        "backoff_limit": 3,
        "references": References("team", {}),
        "started": FineTuneJobReason.TRAINING,
        "ended": FineTuneJobReason.TRAINED,
    }
    return StageDefinition(**defaults | fields)
