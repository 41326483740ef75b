"""Types of a stage of a run: its definition, its state and its next step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tunesmith.decide.plan import Action, Event
from tunesmith.manifests.finished_work import FinishedRecord
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.result_config_map import AttemptRecord, Remedy
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.stages import Stage

from .children import Children
from .limits import RunLimits
from .references import References
from .waiting import Waiting

#: A pod whose node is silent can't be seen to end: after this long beyond its grace period it counts as lost.
LOST_POD_SECONDS = 300.0


class StageState(StrEnum):
    """State of a stage."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RUNNING = "Running"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    BACKING_OFF = "BackingOff"


@dataclass(frozen=True, slots=True)
class BegunAttempts:
    """What status knows of the attempts that have begun: it is written after their Jobs are created.

    Attributes:
        count: their number, over all stages of the run.
        last_update: time of the last update by a pod; None if there was none.
    """

    count: int = 0
    last_update: datetime | None = None


def no_remedy(failure: Failure, records: Sequence[AttemptRecord]) -> Remedy | Failure:
    """The failure as it is: the stage has no remedies."""
    return failure


def starts_nothing(attempt: int, children: Children) -> tuple[KubernetesObject, ...]:
    """Builder of a stage whose settings are lost: its live attempt is followed to its end, and none is started.

    Raises:
        AssertionError: the stage has no live attempt.
    """
    raise AssertionError(f"attempt {attempt} can't be built")


@dataclass(frozen=True, slots=True)
class StageDefinition:
    """Objects of a stage's attempts, and the rules for repeating them.

    Attributes:
        owner: the FineTuneJob or EvalRun.
        build: makes the objects of an attempt, the Job last; records of earlier attempts may change them.
        backoff_limit: retries of failed attempts, over all stages of the run.
        references: objects that the pods refer to.
        started, ended: reasons of the events at start and success; None where another event covers it.
        limits: limits of the whole run.
        nodes: pods of an attempt.
        remedy: change for the next attempts after a failure, given the earlier records; the failure with its final
            message where there is none.
        suspended: no pod may run.
        queued: a queue (Kueue) decides when the Job runs, and owns its ``suspend``.
        lost_pod_seconds: how long beyond its grace period a pod may take to end.
        begun: what status knows of attempts that have begun.
        finished: work of an earlier resource that a pod may report instead of doing it again.
    """

    owner: Owner
    name: Stage
    build: Callable[[int, Children], tuple[KubernetesObject, ...]]
    backoff_limit: int
    references: References
    started: str
    ended: str | None
    limits: RunLimits = field(default=RunLimits())
    nodes: int = 1
    remedy: Callable[[Failure, Sequence[AttemptRecord]], Remedy | Failure] = no_remedy
    suspended: bool = False
    queued: bool = False
    lost_pod_seconds: float = LOST_POD_SECONDS
    begun: BegunAttempts = field(default=BegunAttempts())
    finished: FinishedRecord | None = None

    @property
    def gpus_per_pod(self) -> float:
        """GPUs of one pod."""
        return self.limits.gpus / self.nodes


@dataclass(frozen=True, slots=True)
class Step:
    """Next step of a stage.

    Attributes:
        state: once the actions are carried out.
        children: with the record that this step makes, if any.
        attempt: number of the current or last attempt; 0 before the first.
        waiting: reason for which the pods do not start.
        job: the live Job, as observed.
    """

    state: StageState
    children: Children
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    attempt: int = 0
    waiting: Waiting | None = None
    requeue_after: float | None = None
    job: Body | None = None

    def last_record(self, stage: Stage) -> AttemptRecord | None:
        """The stage's latest record."""
        records = self.children.records_of(stage)
        return records[-1] if records else None

    def report(self, stage: Stage) -> RunReport | None:
        """The report of the stage's success."""
        record = self.last_record(stage)
        return record.report if record else None
