"""Child objects of a run, and totals over its records."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from tunesmith.decide.objects import attempt_of, is_of
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord
from tunesmith_contract.report import Checkpoint
from tunesmith_contract.stages import Stage

AttemptKey = tuple[str | None, str | None]
"""Stage and number of an attempt, as labels have them."""


def lacks_job(
    recorded: Collection[AttemptKey], jobs: Iterable[Body], pods: Iterable[Body], begun: int
) -> bool:
    """True where an attempt has begun, its end is not recorded, and its Job is not there.

    Args:
        recorded: attempts whose end is recorded.
        begun: number of attempts that have begun as status tells it, over all stages.
    """
    if any(attempt_of(job) not in recorded for job in jobs):
        return False
    last: dict[str | None, int] = {}
    for stage, attempt in recorded:
        last[stage] = max(int(attempt or 0), last.get(stage, 0))
    return begun > sum(last.values()) or any(attempt_of(pod) not in recorded for pod in pods)


@dataclass(frozen=True, slots=True)
class Children:
    """Child objects of a run.

    Attributes:
        records: records of the ended attempts of all stages.
        jobs: existing Jobs.
        pods: existing pods, and removed pods that left a report.
        services: the Services under which the pods of a gang find each other.
        workloads: Kueue's Workloads of the Jobs; None where Kueue is not installed.
    """

    records: tuple[AttemptRecord, ...] = ()
    jobs: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    services: tuple[Body, ...] = ()
    workloads: tuple[Body, ...] | None = None

    def records_of(self, stage: Stage) -> tuple[AttemptRecord, ...]:
        """The stage's records, oldest attempt first."""
        records = (record for record in self.records if record.stage == stage)
        return tuple(sorted(records, key=lambda record: record.attempt))

    def job_of(self, stage: Stage, attempt: int) -> Body | None:
        """The Job of an attempt."""
        return next((job for job in self.jobs if is_of(job, stage, attempt)), None)

    def lacks_job(self, begun: int) -> bool:
        """True where an attempt has begun, its end is not recorded, and its Job is not there.

        Args:
            begun: number of attempts that have begun as status tells it.
        """
        return lacks_job(self._recorded, self.jobs, self.pods, begun)

    @property
    def _recorded(self) -> frozenset[AttemptKey]:
        return frozenset((str(record.stage), str(record.attempt)) for record in self.records)

    @property
    def unrecorded_job(self) -> Body | None:
        """The Job of an attempt whose end is not recorded."""
        recorded = self._recorded
        return next((job for job in self.jobs if attempt_of(job) not in recorded), None)

    def pods_of(self, stage: Stage, attempt: int) -> tuple[Body, ...]:
        """The pods of an attempt."""
        return tuple(pod for pod in self.pods if is_of(pod, stage, attempt))

    def pods_of_job(self, job: Body) -> tuple[Body, ...]:
        """The pods of the attempt that a Job belongs to."""
        return tuple(pod for pod in self.pods if attempt_of(pod) == attempt_of(job))

    def services_of(self, stage: Stage, attempt: int) -> tuple[Body, ...]:
        """The Services of an attempt."""
        return tuple(service for service in self.services if is_of(service, stage, attempt))

    def with_records(self, records: tuple[AttemptRecord, ...]) -> "Children":
        """With these records."""
        return replace(self, records=records)

    def with_record(self, record: AttemptRecord) -> "Children":
        """With one more record."""
        return replace(self, records=(*self.records, record))

    def last_checkpoint(self, stage: Stage) -> Checkpoint | None:
        """The latest checkpoint in the stage's records."""
        checkpoints = [record.checkpoint for record in self.records_of(stage) if record.checkpoint]
        return checkpoints[-1] if checkpoints else None

    @property
    def disruptions(self) -> int:
        """Number of attempts that were disrupted."""
        return sum(record.outcome is AttemptOutcome.DISRUPTED for record in self.records)

    @property
    def failures(self) -> int:
        """Number of attempts that failed, without those after which a remedy was applied."""
        return sum(
            record.outcome is AttemptOutcome.FAILED and record.remedy is None for record in self.records
        )

    @property
    def active_seconds(self) -> float:
        """Run time of the pods of ended attempts."""
        return sum(record.active_seconds for record in self.records)

    @property
    def gpu_seconds(self) -> float:
        """GPU time of all ended attempts."""
        return sum(record.gpu_seconds for record in self.records)
