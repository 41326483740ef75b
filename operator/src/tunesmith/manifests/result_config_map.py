"""Record of an ended attempt, in an immutable ConfigMap that outlives Jobs, pods and status.

Records are the memory of a resource: what was tried, how it ended, what came out. Status is made from them.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from tunesmith_contract.base import Report
from tunesmith_contract.report import Checkpoint, Failure, RunReport
from tunesmith_contract.stages import Stage

from .names import ATTEMPT_LABEL, STAGE_LABEL, Owner, child_metadata
from .objects import Body, KubernetesObject

RECORD_KEY = "record.json"


class AttemptOutcome(StrEnum):
    """Outcome of an attempt."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DISRUPTED = "Disrupted"


class Remedy(Report):
    """Change for the attempts that follow."""

    before: int
    micro_batch_size: int


class AdoptedWork(Report):
    """Origin of work that was taken over from an earlier resource of the same name and spec.

    Attributes:
        uid: UID of the resource that did the work.
        finished_at: when it had done it.
    """

    uid: str
    finished_at: datetime


class AttemptRecord(Report):
    """One attempt of one stage.

    Attributes:
        final: no attempt follows: the stage, and with it the resource, has failed.
        reason: the reason of the conditions and events that speak of it.
        report: report of the pod, if the attempt succeeded.
        failure: failure of the attempt; None if it succeeded.
        checkpoint: the newest one that a pod reported, where it did not succeed.
        remedy: change of settings for the next attempts.
        started_at: when its Job became active; None where no Job was made.
        ran_seconds: run time of its pods, with that before it was suspended.
        gpu_seconds: GPUs times the seconds that its pods held them; 0 where they could not use them.
        recorded_at: when the operator made the record, by its own clock; None in a record of an earlier release.
        adopted: where the result comes from, if no pod came to it in this attempt.
    """

    schema_version: Literal[1] = 1
    stage: Stage
    attempt: int = Field(ge=1)
    outcome: AttemptOutcome
    final: bool = False
    reason: str
    report: RunReport | None = None
    failure: Failure | None = None
    checkpoint: Checkpoint | None = None
    remedy: Remedy | None = None
    started_at: datetime | None = None
    ended_at: datetime
    ran_seconds: float | None = None
    gpu_seconds: float = 0.0
    recorded_at: datetime | None = None
    adopted: AdoptedWork | None = None

    @property
    def noticed_at(self) -> datetime:
        """When the operator saw the end: delays count from it, since clocks of the cluster may differ from its own."""
        return self.recorded_at or self.ended_at

    @property
    def active_seconds(self) -> float:
        """Run time of its pods; of a record of an earlier release, how long its Job was active."""
        if self.ran_seconds is not None:
            return self.ran_seconds
        return max(0.0, (self.ended_at - self.started_at).total_seconds()) if self.started_at else 0.0


def build_result_config_map(owner: Owner, record: AttemptRecord) -> KubernetesObject:
    """The record as an immutable ConfigMap, ``<name>-<uid6>-result-<stage>-<attempt>``."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, f"result-{record.stage}", record.attempt),
        "immutable": True,
        "data": {RECORD_KEY: record.to_json()},
    }


def record_text(manifest: Body) -> str | None:
    """The record in a ConfigMap as JSON; None where it holds none."""
    text: str | None = manifest.get("data", {}).get(RECORD_KEY)
    return text


def recorded_attempt(manifest: Body) -> tuple[str | None, str | None] | None:
    """Stage and attempt of the record in a ConfigMap, as the labels of its Job have them; None where it holds none."""
    if record_text(manifest) is None:
        return None
    labels = manifest["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL, "").removeprefix("result-"), labels.get(ATTEMPT_LABEL)


def parse_result(manifest: Body) -> AttemptRecord | None:
    """The record in a ConfigMap; None where it holds none."""
    text = record_text(manifest)
    return None if text is None else AttemptRecord.model_validate_json(text)
