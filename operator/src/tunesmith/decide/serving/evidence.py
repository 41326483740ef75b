"""Counted requests of a version during one step of a rollout, as sums that outlive pods, agents and operators."""

from collections.abc import Iterable

from pydantic import Field

from tunesmith_contract.agent import VersionCounters
from tunesmith_contract.base import Report


class Counts(Report):
    """Requests by their end, with sums over sticky keys, as in ``VersionCounters``.

    Records hold the numbers in the order of these fields: further ones come last.
    """

    requests: int = 0
    errors: int = 0
    abandoned: int = 0
    engine_lost: int = 0
    refused: int = 0
    keys: int = 0
    requests_squared: int = 0
    failures_squared: int = 0
    requests_failures: int = 0

    @classmethod
    def of(cls, counters: VersionCounters) -> "Counts":
        """Counts that an agent reported.

        Agents of the first release tell no keys: each of their requests counts as one of a key of its own.
        """
        errors = min(counters.errors, counters.requests)
        abandoned = min(counters.abandoned, counters.requests - errors)
        sums = counters.model_dump(exclude={"alias", "digest"}) | {"errors": errors, "abandoned": abandoned}
        if counters.keys == 0:
            failures = errors + abandoned
            sums |= {
                "keys": counters.requests,
                "requests_squared": counters.requests,
                "failures_squared": failures,
                "requests_failures": failures,
            }
        return cls(**sums)

    @property
    def failures(self) -> int:
        """Requests that tell against the version."""
        return self.errors + self.abandoned

    def plus(self, other: "Counts") -> "Counts":
        """Sum of both counts."""
        return Counts.model_construct(
            **{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields}
        )

    def since(self, base: "Counts") -> "Counts":
        """Increase since ``base``."""
        return Counts.model_construct(
            **{name: getattr(self, name) - getattr(base, name) for name in Counts.model_fields}
        )

    def follows(self, earlier: "Counts") -> bool:
        """True if counters that only grow can have come here from ``earlier``."""
        return all(getattr(self, name) >= getattr(earlier, name) for name in Counts.model_fields)


class Reading(Report):
    """Counters of one version in one run of a pod's agent."""

    pod_uid: str
    boot_id: str
    counts: Counts


class RunCounts(Report):
    """Latest counters of one run of an agent.

    Attributes:
        counted: some of its requests are in the sum of the step.
    """

    pod_uid: str
    latest: Counts = Counts()
    counted: bool = False


class Arm(Report):
    """Requests of one version since a step began.

    Attributes:
        total: the sum over all pods, with those that are gone.
        sources: number of runs of agents whose requests are in the sum.
        runs: the latest counters of agents, by boot ID.
    """

    total: Counts = Counts()
    sources: int = 0
    runs: dict[str, RunCounts] = Field(default_factory=dict)

    def fold(self, readings: Iterable[Reading], pod_uids: frozenset[str], from_zero: bool) -> "Arm":
        """This arm with the increase of the counters since they were folded last.

        Counters that became smaller began anew. Folding the same readings twice changes nothing.

        Args:
            readings: one for each run of an agent that is known; runs without a reading keep their counters.
            pod_uids: UIDs of the existing pods.
            from_zero: an agent of a pod that is not known yet counted within this step only. Otherwise its first
                reading is the base of later ones.
        """
        readings = tuple(readings)
        total, sources = self.total, self.sources
        known_pods = {run.pod_uid for run in self.runs.values()}
        reported = {reading.boot_id for reading in readings}
        # An agent that has ended and is not reported any more is left out.
        silent = pod_uids.difference(reading.pod_uid for reading in readings)
        runs = {boot: run for boot, run in self.runs.items() if boot in reported or run.pod_uid in silent}
        for reading in readings:
            run = runs.get(reading.boot_id)
            if run is not None and run.latest == reading.counts:
                continue
            if run is None:
                from_start = from_zero or reading.pod_uid in known_pods
                base = Counts() if from_start else reading.counts
                run = RunCounts(pod_uid=reading.pod_uid, latest=base)
            is_later = reading.counts.follows(run.latest)
            increase = reading.counts.since(run.latest if is_later else Counts())
            is_new = increase.requests > 0 and not run.counted
            sources += is_new
            total = total.plus(increase)
            runs[reading.boot_id] = RunCounts(
                pod_uid=reading.pod_uid, latest=reading.counts, counted=run.counted or is_new
            )
        return Arm(total=total, sources=sources, runs=runs)

    def restart(self) -> "Arm":
        """Arm that counts from now on."""
        runs = {boot: run.model_copy(update={"counted": False}) for boot, run in self.runs.items()}
        return Arm(runs=runs)

    def freeze(self) -> "Arm":
        """The sums alone, of an arm that gets no more requests."""
        return Arm(total=self.total, sources=self.sources)


class Evidence(Report):
    """Requests of both versions over the same time."""

    candidate: Arm = Arm()
    stable: Arm = Arm()

    def restart(self) -> "Evidence":
        """Evidence that is counted from now on."""
        return Evidence(candidate=self.candidate.restart(), stable=self.stable.restart())

    @property
    def engine_lost(self) -> int:
        """Requests of either version that ended because an engine was gone."""
        return self.candidate.total.engine_lost + self.stable.total.engine_lost
