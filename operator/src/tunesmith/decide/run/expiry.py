"""Removal of Jobs and their pods some time after the end; the resource, its records and its artifact stay."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import is_deleting
from tunesmith.decide.plan import Delete, Event, Plan
from tunesmith.manifests.objects import Body

from .attempts import SOON_SECONDS


def expire(
    owner: FineTuneJob | EvalRun,
    outcome_written: bool,
    jobs: Sequence[Body],
    ended_at: datetime | None,
    now: datetime,
) -> Plan:
    """Delete the Jobs once ``ttlSecondsAfterFinished`` is over.

    Args:
        outcome_written: the outcome stands in status; no child is removed before.
        ended_at: when the resource ended; None while it has not.
    """
    ttl = owner.spec.ttl_seconds_after_finished
    jobs = [job for job in jobs if not is_deleting(job)]
    if ttl is None or ended_at is None or not jobs:
        return Plan()
    seconds_left = (ended_at + timedelta(seconds=ttl) - now).total_seconds()
    if seconds_left > 0 or not outcome_written:
        return Plan(requeue_after=max(seconds_left, SOON_SECONDS))
    event = Event(RunReason.CHILDREN_REMOVED, f"The Jobs were removed {ttl} s after the end.")
    return Plan(actions=tuple(Delete.of(job) for job in jobs), events=(event,))
