"""Parts of status that every run has: conditions, failure, cost, decimal strings."""

from collections.abc import Iterable
from typing import Any, Literal, overload

from tunesmith.api.common import Condition
from tunesmith.api.reasons import ConditionType
from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.api.status import Cost, Failure
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord

from .stage import StageState, Step

_MESSAGE_CHARACTERS = 2048


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
    """What it took."""
    return Cost(gpu_seconds=f"{gpu_seconds:.0f}")


def build_failure(record: AttemptRecord | None) -> Failure | None:
    """Why it failed, from the record of the last attempt."""
    if record is None or record.failure is None:
        return None
    return Failure.model_validate(record.failure.to_dict())


def conditions_of(conditions: Iterable[Condition]) -> list[dict[str, Any]]:
    """The conditions as they are, as plain dicts."""
    return [condition.to_dict() for condition in conditions]


def ended_conditions(succeeded: bool, reason: str, message: str) -> list[ConditionUpdate]:
    """What kstatus reads as Current or Failed."""
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
    """What kstatus reads as InProgress: not ready for what it waits for, or because it is at work."""
    reason, message = activity
    suspended, hindered = step.state is StageState.SUSPENDED, False
    if step.waiting is not None:
        hindered, reason, message = True, step.waiting.reason, step.waiting.message
    elif step.state is StageState.BACKING_OFF and last is not None:
        reason = Reason.DISRUPTED if last.outcome is AttemptOutcome.DISRUPTED else Reason.RETRYING
        told = last.failure.message if last.failure else ""
        message = f"Attempt {last.attempt} ended, another follows: {told}"
    message = message[:_MESSAGE_CHARACTERS]
    return [
        ConditionUpdate(ConditionType.READY, "False" if hindered else "Unknown", reason, message),
        ConditionUpdate(ConditionType.SUCCEEDED, "Unknown", reason),
        ConditionUpdate(ConditionType.RECONCILING, "False" if suspended else "True", reason, message),
        ConditionUpdate(ConditionType.STALLED, "False", reason),
    ]


def waiting_conditions(reason: str, message: str, hindered: bool = True) -> list[ConditionUpdate]:
    """Nothing has begun, because something is not there yet.

    Args:
        hindered: a person may have to bring it; otherwise time will.
    """
    message = message[:_MESSAGE_CHARACTERS]
    return [
        ConditionUpdate(ConditionType.READY, "False" if hindered else "Unknown", reason, message),
        ConditionUpdate(ConditionType.SUCCEEDED, "Unknown", reason),
        ConditionUpdate(ConditionType.RECONCILING, "True", reason, message),
        ConditionUpdate(ConditionType.STALLED, "False", reason),
    ]


def stage_condition(
    kind: ConditionType, step: Step, stage: str, done: str, message: str, running: str
) -> ConditionUpdate:
    """True when the stage has succeeded, False when it has failed for good, Unknown in between."""
    record = step.last_record(stage)
    if record is not None and record.outcome is AttemptOutcome.SUCCEEDED:
        return ConditionUpdate(kind, "True", done, message)
    if record is not None and record.final:
        told = record.failure.message if record.failure else ""
        return ConditionUpdate(kind, "False", record.reason, told[:_MESSAGE_CHARACTERS])
    return ConditionUpdate(kind, "Unknown", running)
