"""The children of a run, and what their records add up to."""

from dataclasses import dataclass, replace

from tunesmith.decide.objects import Manifest, is_of
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord


@dataclass(frozen=True, slots=True)
class Children:
    """What there is of a run.

    Attributes:
        records: how ended attempts of all stages ended.
        jobs, pods: those that are there, and pods that left a last word before they went.
        services: the Services under which the pods of a gang find each other.
        workloads: Kueue's Workloads of the Jobs; None where there are none to look at, or Kueue is not installed.
    """

    records: tuple[AttemptRecord, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    workloads: tuple[Manifest, ...] | None = None

    def records_of(self, stage: str) -> tuple[AttemptRecord, ...]:
        """The stage's records, oldest attempt first."""
        records = (record for record in self.records if record.stage == stage)
        return tuple(sorted(records, key=lambda record: record.attempt))

    def job_of(self, stage: str, attempt: int) -> Manifest | None:
        """The Job of an attempt."""
        return next((job for job in self.jobs if is_of(job, stage, attempt)), None)

    def pods_of(self, stage: str, attempt: int) -> tuple[Manifest, ...]:
        """The pods of an attempt."""
        return tuple(pod for pod in self.pods if is_of(pod, stage, attempt))

    def services_of(self, stage: str, attempt: int) -> tuple[Manifest, ...]:
        """The Services of an attempt."""
        return tuple(service for service in self.services if is_of(service, stage, attempt))

    def with_records(self, records: tuple[AttemptRecord, ...]) -> "Children":
        """With these records."""
        return replace(self, records=records)

    def with_record(self, record: AttemptRecord) -> "Children":
        """With one more record."""
        return replace(self, records=(*self.records, record))

    @property
    def disruptions(self) -> int:
        """Attempts that were taken away."""
        return sum(record.outcome is AttemptOutcome.DISRUPTED for record in self.records)

    @property
    def failures(self) -> int:
        """Attempts that failed; not those after which something was changed."""
        return sum(
            record.outcome is AttemptOutcome.FAILED and record.remedy is None for record in self.records
        )

    @property
    def active_seconds(self) -> float:
        """How long the pods of ended attempts ran."""
        return sum(record.active_seconds for record in self.records)

    @property
    def gpu_seconds(self) -> float:
        """What all ended attempts took."""
        return sum(record.gpu_seconds for record in self.records)
