"""Persistent record of the rollouts of an AdapterDeployment, from which status can be rebuilt.

One ``ServingRecord`` is stored beside the desired state in the same ConfigMap: both change in one write. Versions, with
their promotion and rejection, are stored in ControllerRevisions (``manifests.version_revision``). The JSON keys
``trial``, ``looked`` and ``failedLooks`` are part of the stored format and stay, whatever the attributes are called.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from tunesmith_contract.agent import DesiredAlias, Version
from tunesmith_contract.base import Report


class Counts(Report):
    """Numbers of requests and of failed requests."""

    requests: int = 0
    errors: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Sum of both counts."""
        return Counts(requests=self.requests + other.requests, errors=self.errors + other.errors)

    def since(self, base: "Counts") -> "Counts":
        """Increase since ``base``."""
        return Counts(requests=self.requests - base.requests, errors=self.errors - base.errors)


class Reading(Report):
    """Counters of one version on one pod, in one run of its agent (``boot_id``)."""

    boot_id: str
    counts: Counts = Counts()


class PodTally(Report):
    """Counters of one pod when a step began (``base``) and now (``latest``), in one run of its agent."""

    boot_id: str
    base: Counts = Counts()
    latest: Counts = Counts()


class Tally(Report):
    """Requests of a candidate since its step began, over all pods.

    Attributes:
        finished: the sum over pods that are gone and runs of agents that ended.
        pods: the counters of running agents, by pod UID.
    """

    finished: Counts = Counts()
    pods: dict[str, PodTally] = Field(default_factory=dict)

    def absorb(self, readings: dict[str, Reading], pod_uids: frozenset[str]) -> "Tally":
        """Tally with the current counters of the pods.

        Args:
            readings: counters by pod UID; a pod without a reading keeps its previous counters.
            pod_uids: UIDs of the existing pods.
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
        """Tally that counts from now on, for the next step."""
        return Tally(
            pods={uid: tally.model_copy(update={"base": tally.latest}) for uid, tally in self.pods.items()}
        )

    @property
    def total(self) -> Counts:
        """Requests since the step began, over all pods."""
        total = self.finished
        for tally in self.pods.values():
            total = total.plus(tally.latest.since(tally.base))
        return total


class RolloutCandidate(Report):
    """Version that is being rolled out.

    Attributes:
        weight: its share of requests in percent; 0 while pods load and verify it.
        began: the time at which it received this weight.
        last_check: the time of its latest analysis check.
        failed_checks: the number of checks in this step that found a guardrail violated.
        tally: its requests since ``began``.
    """

    version: Version
    weight: int = Field(0, ge=0, le=100)
    began: datetime
    last_check: datetime = Field(alias="looked")
    failed_checks: int = Field(0, alias="failedLooks")
    tally: Tally = Tally()


class Rejection(Report):
    """Version that was rolled back."""

    version: Version
    reason: str
    message: str
    time: datetime


class AliasRecord(Report):
    """Rollout state of one alias.

    Attributes:
        stable: the version that the alias stands for.
        promoted: the time at which that version was promoted.
        candidate: the version that is being rolled out.
        rejection: the version that was rolled back last.
    """

    name: str
    stable: Version | None = None
    promoted: datetime | None = None
    candidate: RolloutCandidate | None = Field(None, alias="trial")
    rejection: Rejection | None = None

    def to_desired(self) -> DesiredAlias:
        """Desired state of the alias, as sent to the pods."""
        return DesiredAlias(
            name=self.name,
            stable=self.stable,
            candidate=self.candidate.version if self.candidate else None,
            weight=self.candidate.weight if self.candidate else 0,
        )


class ServingRecord(Report):
    """Rollout state of all aliases, ordered by name."""

    schema_version: Literal[1] = 1
    aliases: tuple[AliasRecord, ...] = ()
