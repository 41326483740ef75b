"""The serving pods as the rollout sees them: who is ready, what each holds, what each counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_contract.agent import AgentReport, LoadedVersion, LoadState

from .record import Counts, Reading


@dataclass(frozen=True, slots=True)
class Agent:
    """The latest report of a pod's agent, and whether its connection still stands."""

    report: AgentReport
    connected: bool


@dataclass(frozen=True, slots=True)
class ServingPod:
    """One pod.

    Attributes:
        ready: it takes requests.
        agent: None before its agent was first heard of.
        versions: what a connected agent holds, by name and digest.
        counters: what the agent counted, by name and digest.
        body: the pod as the API server gave it.
    """

    name: str
    uid: str
    ready: bool
    agent: Agent | None
    versions: Mapping[tuple[str, str], LoadedVersion]
    counters: Mapping[tuple[str, str], Counts]
    body: Mapping[str, Any]

    def version(self, alias: str, digest: str) -> LoadedVersion | None:
        """How far a version is on this pod, as far as the connected agent says."""
        return self.versions.get((alias, digest))

    @property
    def generation(self) -> int:
        """The desired state that it last acted on."""
        return self.agent.report.applied_generation if self.agent else 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """All pods that are not being deleted, in the order of their names."""

    pods: tuple[ServingPod, ...]

    @property
    def ready(self) -> tuple[ServingPod, ...]:
        """The pods that take requests."""
        return tuple(pod for pod in self.pods if pod.ready)

    @property
    def uids(self) -> frozenset[str]:
        """The pods that exist."""
        return frozenset(pod.uid for pod in self.pods)

    @property
    def generation(self) -> int:
        """The highest desired state that any pod acted on."""
        return max((pod.generation for pod in self.pods), default=0)

    def is_behind(self, generation: int) -> bool:
        """Whether a connected agent has not acted on this desired state yet."""
        return any(pod.agent and pod.agent.connected and pod.generation < generation for pod in self.pods)

    def active_on(self, alias: str, digest: str) -> int:
        """How many ready pods hold the version, proven to be active."""
        return sum(_is_active(pod.version(alias, digest)) for pod in self.ready)

    def is_proved(self, alias: str, digest: str) -> bool:
        """Whether the version is proven active on each ready pod, and there is one."""
        return bool(self.ready) and self.active_on(alias, digest) == len(self.ready)

    def holds(self, alias: str, digest: str) -> bool:
        """Whether a pod still has the version."""
        versions = (pod.version(alias, digest) for pod in self.pods)
        return any(version is not None and version.state is not LoadState.FAILED for version in versions)

    def failures(self, alias: str, digest: str) -> tuple[tuple[ServingPod, LoadedVersion], ...]:
        """The pods on which the version failed, and why."""
        found = ((pod, pod.version(alias, digest)) for pod in self.pods)
        return tuple(
            (pod, version) for pod, version in found if version and version.state is LoadState.FAILED
        )

    def readings(self, alias: str, digest: str) -> dict[str, Reading]:
        """What each pod counted for the version, by pod UID, as far as its agent was heard of."""
        return {
            pod.uid: Reading(
                boot_id=pod.agent.report.boot_id, counts=pod.counters.get((alias, digest), Counts())
            )
            for pod in self.pods
            if pod.agent is not None
        }


def build_fleet(pods: Iterable[Mapping[str, Any]], agents: Iterable[Agent]) -> Fleet:
    """Bring pods and the reports of their agents together; reports of other pods are left out."""
    by_uid = {agent.report.pod_uid: agent for agent in agents}
    alive = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and not _is_finished(pod))
    found = (_build_pod(pod, by_uid.get(pod["metadata"]["uid"])) for pod in alive)
    return Fleet(tuple(sorted(found, key=lambda pod: pod.name)))


def _build_pod(body: Mapping[str, Any], agent: Agent | None) -> ServingPod:
    versions = agent.report.versions if agent and agent.connected else ()
    counters = agent.report.counters if agent else ()
    return ServingPod(
        name=body["metadata"]["name"],
        uid=body["metadata"]["uid"],
        ready=_is_ready(body),
        agent=agent,
        versions={(version.alias, version.digest): version for version in versions},
        counters={
            (counted.alias, counted.digest): Counts(
                requests=counted.requests, errors=min(counted.errors, counted.requests)
            )
            for counted in counters
        },
        body=body,
    )


def _is_active(version: LoadedVersion | None) -> bool:
    return version is not None and version.state is LoadState.ACTIVE


def _is_finished(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
