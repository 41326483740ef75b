"""Parts of status that every run has: conditions, failure, cost, decimal strings."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, overload

from tunesmith.api.common import Condition
from tunesmith.api.reasons import ConditionType, RunReason
from tunesmith.api.status import Cost, Failure
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord
from tunesmith_contract.stages import Stage

from .stage import StageState, Step

_MESSAGE_CHARACTERS = 2048

#: Conditions of actions whose refusal withholds nothing else.
REFUSAL_CONDITIONS = frozenset(
    {ConditionType.JOB_CREATED, ConditionType.EVALUATION_CREATED, ConditionType.FINISHED_WORK_KEPT}
)


@overload
def decimal(number: float) -> str: ...
@overload
def decimal(number: None) -> None: ...
@overload
def decimal(number: float | None) -> str | None: ...
def decimal(number: float | None) -> str | None:
    """A number as status shows it: six significant digits, as short as it goes."""
    return None if number is None else f"{number:.6g}"


def build_cost(gpu_seconds: float) -> Cost:
    """Cost in GPU seconds."""
    return Cost(gpu_seconds=f"{gpu_seconds:.0f}")


def build_failure(record: AttemptRecord | None) -> Failure | None:
    """Failure for status, from the record of the last attempt."""
    if record is None or record.failure is None:
        return None
    return Failure.model_validate(record.failure.to_dict())


def conditions_of(conditions: Iterable[Condition]) -> list[dict[str, Any]]:
    """The conditions as plain dicts, without those of refused actions: they stand only while an action is refused."""
    kept = (condition for condition in conditions if condition.type not in REFUSAL_CONDITIONS)
    return [condition.to_dict() for condition in kept]


def is_job_refused(conditions: Iterable[Condition]) -> bool:
    """True where the last attempt that status counts has no Job yet: the API server refuses it."""
    return any(condition.type == ConditionType.JOB_CREATED for condition in conditions)


def first_try(conditions: Iterable[Condition], started: datetime | None) -> datetime | None:
    """Start in the status of a run whose first objects are refused: it must not change with each try."""
    return started if is_job_refused(conditions) else None


def ended_conditions(succeeded: bool, reason: str, message: str) -> list[ConditionUpdate]:
    """Conditions that kstatus reads as Current or Failed."""
    message = message[:_MESSAGE_CHARACTERS]
    done: Literal["True", "False"] = "True" if succeeded else "False"
    return [
        ConditionUpdate(ConditionType.READY, done, reason, message),
        ConditionUpdate(ConditionType.SUCCEEDED, done, reason, message),
        ConditionUpdate(ConditionType.RECONCILING, "False", reason),
        ConditionUpdate(
            ConditionType.STALLED, "False" if succeeded else "True", reason, "" if succeeded else message
        ),
    ]


def attempt_conditions(
    step: Step, last: AttemptRecord | None, activity: tuple[str, str]
) -> list[ConditionUpdate]:
    """Conditions that kstatus reads as InProgress, with what the attempt waits for or does."""
    reason, message = activity
    suspended, blocked = step.state is StageState.SUSPENDED, step.waiting is not None
    if step.waiting is not None:
        reason, message = step.waiting.reason, step.waiting.message
    elif step.state is StageState.BACKING_OFF and last is not None:
        reason = RunReason.DISRUPTED if last.outcome is AttemptOutcome.DISRUPTED else RunReason.RETRYING
        message = f"Attempt {last.attempt} ended, another follows."
        if last.failure is not None:
            message = f"{message} {last.failure.reason}: {last.failure.message}"
    message = message[:_MESSAGE_CHARACTERS]
    return [
        ConditionUpdate(ConditionType.READY, "False" if blocked else "Unknown", reason, message),
        ConditionUpdate(ConditionType.SUCCEEDED, "Unknown", reason),
        ConditionUpdate(ConditionType.RECONCILING, "False" if suspended else "True", reason, message),
        ConditionUpdate(ConditionType.STALLED, "False", reason),
    ]


def waiting_conditions(reason: str, message: str, blocked: bool = True) -> list[ConditionUpdate]:
    """Conditions of a resource that has not begun, because something does not exist yet.

    Args:
        blocked: a person may have to create it; otherwise time will help.
    """
    message = message[:_MESSAGE_CHARACTERS]
    return [
        ConditionUpdate(ConditionType.READY, "False" if blocked else "Unknown", reason, message),
        ConditionUpdate(ConditionType.SUCCEEDED, "Unknown", reason),
        ConditionUpdate(ConditionType.RECONCILING, "True", reason, message),
        ConditionUpdate(ConditionType.STALLED, "False", reason),
    ]


def stage_condition(
    kind: ConditionType, step: Step, stage: Stage, done: str, message: str, running: str
) -> ConditionUpdate:
    """Condition of a stage: True once it has succeeded, False once it has failed for good, else Unknown."""
    record = step.last_record(stage)
    if record is not None and record.outcome is AttemptOutcome.SUCCEEDED:
        return ConditionUpdate(kind, "True", done, message)
    if record is not None and record.final:
        message = record.failure.message if record.failure else ""
        return ConditionUpdate(kind, "False", record.reason, message[:_MESSAGE_CHARACTERS])
    return ConditionUpdate(kind, "Unknown", running)
