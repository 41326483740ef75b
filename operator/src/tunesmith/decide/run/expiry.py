"""Tidying up after the end: Jobs and their pods go, the resource, its records and its artefact stay."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.objects import Manifest, is_deleting
from tunesmith.decide.plan import Delete, Event, Plan

from .attempts import SOON_SECONDS


def expire(
    owner: FineTuneJob | EvalRun,
    outcome_written: bool,
    jobs: Sequence[Manifest],
    ended_at: datetime | None,
    now: datetime,
) -> Plan:
    """Delete the Jobs once ``ttlSecondsAfterFinished`` is over.

    Args:
        outcome_written: whether the outcome stands in status: no child may vanish before.
        ended_at: when the resource came to its end; None while it has not.
    """
    ttl = owner.spec.ttl_seconds_after_finished
    jobs = [job for job in jobs if not is_deleting(job)]
    if ttl is None or ended_at is None or not jobs:
        return Plan()
    left = (ended_at + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0 or not outcome_written:
        return Plan(requeue_after=max(left, SOON_SECONDS))
    event = Event(FineTuneJobReason.CHILDREN_REMOVED, f"The Jobs were removed {ttl} s after the end.")
    return Plan(actions=tuple(_delete(job) for job in jobs), events=(event,))


def _delete(job: Manifest) -> Delete:
    metadata = job["metadata"]
    return Delete("batch/v1", "Job", metadata["namespace"], metadata["name"], metadata["uid"])
