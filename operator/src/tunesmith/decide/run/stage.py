"""A stage of a run, and what follows for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tunesmith.decide.objects import Manifest
from tunesmith.decide.plan import Action, Event
from tunesmith.decide.plan import Manifest as Body
from tunesmith.manifests.names import Owner
from tunesmith.manifests.result_config_map import AttemptRecord, Remedy
from tunesmith_contract.report import Failure, RunReport

from .children import Children
from .limits import Limits
from .waiting import References, Waiting

#: A pod whose node is silent can't be seen to end: after this long beyond its grace period it counts as lost.
LOST_POD_SECONDS = 300.0


class StageState(StrEnum):
    """Where a stage stands."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RUNNING = "Running"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    BACKING_OFF = "BackingOff"


def no_remedy(failure: Failure, records: Sequence[AttemptRecord]) -> Remedy | Failure:
    """Nothing can be changed: the failure is what it is."""
    return failure


@dataclass(frozen=True, slots=True)
class Stage:
    """What is to be run, and how patiently.

    Attributes:
        owner: whose stage it is.
        name: ``generate``, ``prepare``, ``train`` or ``evaluate``.
        build: the objects of an attempt, the Job last; what is known of earlier attempts may change them.
        backoff_limit: how often failed attempts of the run, over all stages, are tried again.
        references: what the pods refer to.
        started, ended: reasons of the events that say so; None where another event does.
        limits: how long the run, all together, may go on.
        nodes: pods of an attempt.
        remedy: what the next attempts change after a failure with these records before it; the failure, in its final
            words, where that is nothing.
        suspended: no pod may run.
        queued: a queue (Kueue) decides when the Job runs: its ``suspend`` is the queue's.
        lost_pod_seconds: how long beyond its grace period a pod may take to end.
    """

    owner: Owner
    name: str
    build: Callable[[int, Children], tuple[Body, ...]]
    backoff_limit: int
    references: References
    started: str
    ended: str | None
    limits: Limits = field(default=Limits())
    nodes: int = 1
    remedy: Callable[[Failure, Sequence[AttemptRecord]], Remedy | Failure] = no_remedy
    suspended: bool = False
    queued: bool = False
    lost_pod_seconds: float = LOST_POD_SECONDS

    @property
    def gpus_per_pod(self) -> float:
        """GPUs of one pod."""
        return self.limits.gpus / self.nodes


@dataclass(frozen=True, slots=True)
class Step:
    """What follows for a stage.

    Attributes:
        state: where it stands once the actions are carried out.
        children: with the record that this step makes, if any.
        attempt: the current or last attempt; 0 before the first.
        waiting: why it does not go on.
        job: the live Job, as observed.
    """

    state: StageState
    children: Children
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    attempt: int = 0
    waiting: Waiting | None = None
    requeue_after: float | None = None
    job: Manifest | None = None

    def last_record(self, stage: str) -> AttemptRecord | None:
        """The stage's latest record."""
        records = self.children.records_of(stage)
        return records[-1] if records else None

    def report(self, stage: str) -> RunReport | None:
        """The report of the stage's success."""
        record = self.last_record(stage)
        return record.report if record else None
