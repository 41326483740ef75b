"""Holding a Job and letting it go on: by its own ``suspend``, or through the queue that decides when it runs."""

from collections.abc import Sequence

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.objects import Manifest, is_suspended
from tunesmith.decide.plan import Action, Event, Patch, owned_by
from tunesmith.decide.plan import Manifest as Body
from tunesmith.manifests.names import GROUP

from .usage import USED_ANNOTATION, Usage, is_active, noted_usage

#: Marks a Workload that was made inactive here: one that its queue or an administrator holds is left alone.
HELD_ANNOTATION = f"{GROUP}/held"

Change = tuple[tuple[Action, ...], tuple[Event, ...]]


def hold_or_release(
    suspended: bool,
    queued: bool,
    job: Manifest,
    pods: Sequence[Manifest],
    workloads: Sequence[Manifest] | None,
    usage: Usage,
) -> Change:
    """What brings a live Job to where it should be; what its pods took is noted before they go.

    Args:
        suspended: no pod may run.
        queued: the Job's ``suspend`` is its queue's.
        pods: of the Job.
        workloads: Kueue's, of all Jobs of the run.
        usage: of the Job until now.
    """
    if queued:
        actions, events = _through_queue(suspended, job, workloads or ())
        return (*actions, *_note(job, pods, usage)), events
    if is_suspended(job) == suspended:
        return _note(job, pods, usage), ()
    name = job["metadata"]["name"]
    change: Body = {"spec": {"suspend": suspended}}
    if not suspended:
        return (_patch_job(job, change),), (Event(Reason.RESUMED, f"Job {name} goes on."),)
    change["metadata"] = {"annotations": {USED_ANNOTATION: usage.to_annotation()}}
    return (_patch_job(job, change),), (Event(Reason.SUSPENDED, f"Job {name} is held."),)


def _note(job: Manifest, pods: Sequence[Manifest], usage: Usage) -> tuple[Action, ...]:
    """Note what the pods of a held Job took, once they have ended."""
    fresh = usage.active_seconds - noted_usage(job).active_seconds >= 1
    if not is_suspended(job) or not fresh or any(is_active(pod) for pod in pods):
        return ()
    return (_patch_job(job, {"metadata": {"annotations": {USED_ANNOTATION: usage.to_annotation()}}}),)


def _patch_job(job: Manifest, change: Body) -> Patch:
    metadata = job["metadata"]
    return Patch("batch/v1", "Job", metadata["namespace"], metadata["name"], change)


def _through_queue(suspended: bool, job: Manifest, workloads: Sequence[Manifest]) -> Change:
    actions: list[Action] = []
    events: list[Event] = []
    for workload in workloads:
        held = HELD_ANNOTATION in (workload["metadata"].get("annotations") or {})
        active = workload["spec"].get("active", True)
        if not owned_by(dict(workload), job["metadata"]["uid"]) or held == suspended:
            continue
        if suspended and not active:
            continue
        metadata = workload["metadata"]
        change = {
            "metadata": {"annotations": {HELD_ANNOTATION: "true" if suspended else None}},
            "spec": {"active": not suspended},
        }
        actions.append(
            Patch(workload["apiVersion"], "Workload", metadata["namespace"], metadata["name"], change)
        )
        verb = "is made inactive: its queue ends the pods" if suspended else "is active again"
        reason = Reason.SUSPENDED if suspended else Reason.RESUMED
        events.append(Event(reason, f"Workload {metadata['name']} {verb}."))
    return tuple(actions), tuple(events)
