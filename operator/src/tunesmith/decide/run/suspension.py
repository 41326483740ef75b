"""Suspension of a live Job: by its own ``suspend``, or through the queue that decides when it runs."""

from collections.abc import Iterable

from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import condition_of
from tunesmith.decide.plan import Action, Event, Patch, owned_by
from tunesmith.manifests.names import GROUP, QUEUE_LABEL, Owner
from tunesmith.manifests.objects import Body, KubernetesObject

from .attempt import Attempt
from .usage import USED_ANNOTATION, saved_usage

#: Marks a Workload that the operator made inactive: one that its queue or an administrator holds is left alone.
HELD_ANNOTATION = f"{GROUP}/held"

#: Conditions of a Workload that tell for what it waits, in the order in which Kueue meets them.
WORKLOAD_CONDITIONS = ("QuotaReserved", "Admitted")
MAX_WORDS_BYTES = 400

Change = tuple[tuple[Action, ...], tuple[Event, ...]]


def suspend_or_resume(attempt: Attempt, job: Body) -> Change:
    """Bring the attempt's live Job to the state that its stage asks for, and save the usage of pods that end."""
    suspend = attempt.stage.suspended
    if attempt.stage.queued:
        actions, events = _change_workloads(attempt, job)
        return (*actions, *_save_usage(attempt, job)), events
    if attempt.suspended == suspend:
        return _save_usage(attempt, job), ()
    name = job["metadata"]["name"]
    if not suspend:
        resume = Patch.of(job, {"spec": {"suspend": False}})
        return (resume,), (Event(RunReason.RESUMED, f"Job {name} is resumed."),)
    hold = Patch.of(job, {"spec": {"suspend": True}, **_usage_annotation(attempt)})
    return (hold,), (Event(RunReason.SUSPENDED, f"Job {name} is suspended."),)


def is_held(workload: Body) -> bool:
    """True for a Workload that the operator made inactive."""
    return HELD_ANNOTATION in (workload["metadata"].get("annotations") or {})


def describe_queue(owner: Owner, workloads: Iterable[Body] = ()) -> str:
    """What a run waits for whose Job its queue holds, as the end of a sentence, with Kueue's words if known."""
    queue = owner.metadata.labels.get(QUEUE_LABEL)
    if queue is None:
        return "waits in its queue."
    waits, command = (
        f"waits in the queue {queue}",
        f"kubectl describe workloads -n {owner.metadata.namespace}",
    )
    words = next(filter(None, map(_words_of_kueue, workloads)), "")
    return f'{waits}: "{words}". {command} tells more.' if words else f"{waits}. {command} tells for what."


def _words_of_kueue(workload: Body) -> str:
    """Message of the first condition that is not met, in bounds: it may name each flavor of a queue."""
    unmet = (condition_of(workload, kind, "False") for kind in WORKLOAD_CONDITIONS)
    message = " ".join(next((str(each.get("message") or "") for each in unmet if each), "").split())
    if len(message.encode()) <= MAX_WORDS_BYTES:
        return message
    return message.encode()[: MAX_WORDS_BYTES - 3].decode(errors="ignore") + "…"


def _usage_annotation(attempt: Attempt) -> KubernetesObject:
    return {"metadata": {"annotations": {USED_ANNOTATION: attempt.usage.to_annotation()}}}


def _save_usage(attempt: Attempt, job: Body) -> tuple[Action, ...]:
    """Save the usage of a suspended Job once its pods have ended, unless it is saved already."""
    unsaved = attempt.usage.active_seconds - saved_usage(job).active_seconds >= 1
    if not attempt.suspended or not unsaved or attempt.has_active_pods:
        return ()
    return (Patch.of(job, _usage_annotation(attempt)),)


def _change_workloads(attempt: Attempt, job: Body) -> Change:
    """Make the Job's Workloads inactive or active again; its queue then ends or starts the pods."""
    suspend = attempt.stage.suspended
    actions: list[Action] = []
    events: list[Event] = []
    for workload in attempt.children.workloads or ():
        held = is_held(workload)
        if not owned_by(workload, job["metadata"]["uid"]) or held == suspend:
            continue
        if suspend and not workload["spec"].get("active", True):
            continue
        change = {
            "metadata": {"annotations": {HELD_ANNOTATION: "true" if suspend else None}},
            "spec": {"active": not suspend},
        }
        actions.append(Patch.of(workload, change))
        verb = "is made inactive: its queue ends the pods" if suspend else "is active again"
        reason = RunReason.SUSPENDED if suspend else RunReason.RESUMED
        events.append(Event(reason, f"Workload {workload['metadata']['name']} {verb}."))
    return tuple(actions), tuple(events)
