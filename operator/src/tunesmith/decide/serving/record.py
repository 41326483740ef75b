"""What is kept about the rollouts of an AdapterDeployment, so that status can be made again from it.

One ``ServingRecord`` lies beside the desired state in the same ConfigMap: both change in one write. Versions, with
their promotion and their rejection, lie in ControllerRevisions (``manifests.version_revision``).
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from tunesmith_contract.agent import DesiredAlias, Version
from tunesmith_contract.base import Report


class Counts(Report):
    """Requests, and how many of them failed."""

    requests: int = 0
    errors: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum."""
        return Counts(requests=self.requests + other.requests, errors=self.errors + other.errors)

    def since(self, base: "Counts") -> "Counts":
        """What came on top of ``base``."""
        return Counts(requests=self.requests - base.requests, errors=self.errors - base.errors)


class Reading(Report):
    """The counters of one version in one life of an agent."""

    boot_id: str
    counts: Counts = Counts()


class PodTally(Report):
    """What one pod counted in this step: from ``base`` to ``latest``, in one life of its agent."""

    boot_id: str
    base: Counts = Counts()
    latest: Counts = Counts()


class Tally(Report):
    """What all pods counted since the step began.

    Attributes:
        finished: the sum over lives of agents that are over.
        pods: the lives that go on, by pod UID.
    """

    finished: Counts = Counts()
    pods: dict[str, PodTally] = Field(default_factory=dict)

    def absorb(self, readings: dict[str, Reading], pod_uids: frozenset[str]) -> "Tally":
        """Take in what the pods counted up to now.

        Args:
            readings: by pod UID; a pod that is not heard of keeps what it had.
            pod_uids: the pods that exist.
        """
        finished, pods = self.finished, {}
        for uid, tally in self.pods.items():
            reading = readings.get(uid)
            if uid not in pod_uids or (reading is not None and reading.boot_id != tally.boot_id):
                finished = finished.plus(tally.latest.since(tally.base))
            else:
                pods[uid] = tally
        for uid, reading in readings.items():
            before = pods.get(uid, PodTally(boot_id=reading.boot_id))
            if reading.counts.requests >= before.latest.requests:
                pods[uid] = before.model_copy(update={"latest": reading.counts})
        return Tally(finished=finished, pods=pods)

    def restart(self) -> "Tally":
        """Count from here on."""
        return Tally(
            pods={uid: tally.model_copy(update={"base": tally.latest}) for uid, tally in self.pods.items()}
        )

    @property
    def total(self) -> Counts:
        """Since the step began, over all pods."""
        total = self.finished
        for tally in self.pods.values():
            total = total.plus(tally.latest.since(tally.base))
        return total


class Trial(Report):
    """A version that is to take over.

    Attributes:
        weight: its share in percent; 0 while it is loaded and proven.
        began: when it got this weight.
        looked: when it was last judged.
        failed_looks: looks of this step that found a bound crossed.
        tally: what it answered since ``began``.
    """

    version: Version
    weight: int = Field(0, ge=0, le=100)
    began: datetime
    looked: datetime
    failed_looks: int = 0
    tally: Tally = Tally()


class Rejection(Report):
    """A version that was taken back."""

    version: Version
    reason: str
    message: str
    time: datetime


class AliasRecord(Report):
    """One stable name.

    Attributes:
        stable: what the name stands for.
        promoted: when that took over.
        trial: what is to take over.
        rejection: the last version that was taken back.
    """

    name: str
    stable: Version | None = None
    promoted: datetime | None = None
    trial: Trial | None = None
    rejection: Rejection | None = None

    def to_desired(self) -> DesiredAlias:
        """What the pods are told."""
        return DesiredAlias(
            name=self.name,
            stable=self.stable,
            candidate=self.trial.version if self.trial else None,
            weight=self.trial.weight if self.trial else 0,
        )


class ServingRecord(Report):
    """All stable names, in the order of their names."""

    schema_version: Literal[1] = 1
    aliases: tuple[AliasRecord, ...] = ()
