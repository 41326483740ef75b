"""Elapsed times of a record. A clock that jumps changes them by seconds only, and they stand still without an operator.

Each pass adds the time since the record was written, but no more than could have passed while an operator was at work:
such a record is written again within ``heartbeat_seconds``.
"""

from datetime import datetime
from typing import Any

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.api.values import duration_seconds

from .record import AliasRecord, RolloutCandidate

#: Longest time between two writes of a record while a version is rolled out or can be switched back.
_MOVING_SECONDS = 30.0
#: The same while the stable version is only observed; its counts begin anew after this time.
RESTING_SECONDS = 600.0
_SHORTEST_LIMIT = 20.0


def check_interval(adapter: Adapter) -> float:
    """Seconds between two checks."""
    return max(duration_seconds(adapter.rollout.analysis.interval), 1.0)


def step_pause(candidate: RolloutCandidate, adapter: Adapter) -> float:
    """Seconds for which the candidate's step lasts at least."""
    pauses = (step.pause for step in adapter.rollout.steps if step.weight == candidate.weight)
    pause = next(pauses, None)
    return duration_seconds(pause) if pause else 0.0


def heartbeat_seconds(record: AliasRecord, adapter: Adapter) -> float:
    """Longest time after which the record is written again."""
    if record.candidate is None and record.watch.previous is None:
        return RESTING_SECONDS
    return min(check_interval(adapter), _MOVING_SECONDS)


def with_elapsed(record: AliasRecord, adapter: Adapter, now: datetime, waits: bool) -> AliasRecord:
    """The record as of now.

    Args:
        waits: time without progress counts: there are pods, and the rollout is not paused.
    """
    if record.written is None:
        return record.model_copy(update={"written": now})
    limit = max(2 * heartbeat_seconds(record, adapter), _SHORTEST_LIMIT)
    passed = min(max((now - record.written).total_seconds(), 0.0), limit)
    watch = record.watch
    update: dict[str, Any] = {
        "written": now,
        "watch": watch.model_copy(
            update={"seconds": watch.seconds + passed, "check_seconds": watch.check_seconds + passed}
        ),
    }
    if candidate := record.candidate:
        over = candidate.step_seconds + passed - step_pause(candidate, adapter)
        waited = min(max(over, 0.0), passed) if waits else 0.0
        update["candidate"] = candidate.model_copy(
            update={
                "step_seconds": candidate.step_seconds + passed,
                "check_seconds": candidate.check_seconds + passed,
                "waiting_seconds": candidate.waiting_seconds + waited,
            }
        )
    return record.model_copy(update=update)


def must_be_written(stored: AliasRecord | None, record: AliasRecord, adapter: Adapter) -> bool:
    """True if the record differs from the stored one in more than times, or its times must be kept."""
    if stored is None or stored.written is None or record.written is None:
        return True
    if record.written < stored.written or record.without_times() != stored.without_times():
        return True
    rests = record.candidate is None and record.watch.previous is None
    age = (record.written - stored.written).total_seconds()
    return not rests and age >= heartbeat_seconds(record, adapter)


def next_pass_seconds(record: AliasRecord, adapter: Adapter, quorum_seconds: float) -> float | None:
    """Seconds until something in the record is due, at least 1; None if nothing is.

    Args:
        quorum_seconds: time without progress after which some of the pods suffice.
    """
    dues: list[float] = []
    if candidate := record.candidate:
        pause = step_pause(candidate, adapter)
        dues += [heartbeat_seconds(record, adapter), pause - candidate.step_seconds]
        if candidate.weight:
            dues.append(check_interval(adapter) - candidate.check_seconds)
        dues.append(quorum_seconds - candidate.waiting_seconds)
        dues.append(duration_seconds(adapter.rollout.progress_deadline) - candidate.waiting_seconds)
    if record.watch.previous is not None:
        window = duration_seconds(adapter.rollout.rollback_window)
        dues += [window - record.watch.seconds, check_interval(adapter) - record.watch.check_seconds]
    return max(min((due for due in dues if due > 0), default=0.0), 1.0) if dues else None
