"""State of the serving pods: readiness, loaded versions and request counters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunesmith.decide.objects import condition_of, is_deleting, is_finished
from tunesmith.manifests.objects import Body
from tunesmith_contract.agent import UNPROVEN, AgentReport, LoadedVersion, LoadState

from .record import Counts, Reading


@dataclass(frozen=True, slots=True)
class Agent:
    """Latest report of a pod's agent, and the state of its connection."""

    report: AgentReport
    connected: bool


@dataclass(frozen=True, slots=True)
class ServingPod:
    """One serving pod with its agent.

    Attributes:
        ready: the pod accepts requests.
        agent: None until the first report of its agent.
        versions: the versions on a connected agent, by alias and digest.
        counters: the request counters of the agent, by alias and digest.
        body: the Pod object.
    """

    name: str
    uid: str
    ready: bool
    agent: Agent | None
    versions: Mapping[tuple[str, str], LoadedVersion]
    counters: Mapping[tuple[str, str], Counts]
    body: Body

    def version(self, alias: str, digest: str) -> LoadedVersion | None:
        """Load state of a version on this pod, if its agent is connected and has the version."""
        return self.versions.get((alias, digest))

    @property
    def generation(self) -> int:
        """Generation of the desired state that the pod applied last."""
        return self.agent.report.applied_generation if self.agent else 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """All serving pods that are not being deleted, ordered by name."""

    pods: tuple[ServingPod, ...]

    @property
    def ready(self) -> tuple[ServingPod, ...]:
        """Pods that accept requests."""
        return tuple(pod for pod in self.pods if pod.ready)

    @property
    def uids(self) -> frozenset[str]:
        """UIDs of all pods."""
        return frozenset(pod.uid for pod in self.pods)

    @property
    def generation(self) -> int:
        """Highest generation of the desired state that any pod applied."""
        return max((pod.generation for pod in self.pods), default=0)

    def is_behind(self, generation: int) -> bool:
        """True if a connected agent has not applied this generation yet."""
        return any(pod.agent and pod.agent.connected and pod.generation < generation for pod in self.pods)

    def active_on(self, alias: str, digest: str) -> int:
        """Number of ready pods on which the version is verified to be active."""
        versions = (pod.version(alias, digest) for pod in self.ready)
        return sum(version is not None and version.state is LoadState.ACTIVE for version in versions)

    def is_active_on_all(self, alias: str, digest: str) -> bool:
        """True if the version is active on every ready pod and there is at least one."""
        return bool(self.ready) and self.active_on(alias, digest) == len(self.ready)

    def holds(self, alias: str, digest: str) -> bool:
        """True if any pod still has the version."""
        versions = (pod.version(alias, digest) for pod in self.pods)
        return any(version is not None and version.state is not LoadState.FAILED for version in versions)

    def failures(self, alias: str, digest: str) -> tuple[tuple[ServingPod, LoadedVersion], ...]:
        """Pods on which the version failed to load, with the cause."""
        versions = ((pod, pod.version(alias, digest)) for pod in self.pods)
        return tuple(
            (pod, version) for pod, version in versions if version and version.state is LoadState.FAILED
        )

    def unproven(self, alias: str, digest: str) -> str:
        """Message of a pod on which the version is active without a proof; empty without one."""
        versions = (pod.version(alias, digest) for pod in self.pods)
        messages = (v.message for v in versions if v and v.state is LoadState.ACTIVE and v.reason == UNPROVEN)
        return next(messages, "")

    def readings(self, alias: str, digest: str) -> dict[str, Reading]:
        """Counters of the version by pod UID, for pods whose agent has reported."""
        return {
            pod.uid: Reading(
                boot_id=pod.agent.report.boot_id, counts=pod.counters.get((alias, digest), Counts())
            )
            for pod in self.pods
            if pod.agent is not None
        }


def build_fleet(pods: Iterable[Body], agents: Iterable[Agent]) -> Fleet:
    """Fleet of the pods with the reports of their agents; reports of unknown pods are ignored."""
    by_uid = {agent.report.pod_uid: agent for agent in agents}
    alive = (pod for pod in pods if not is_deleting(pod) and not is_finished(pod))
    serving = (_build_serving_pod(pod, by_uid.get(pod["metadata"]["uid"])) for pod in alive)
    return Fleet(tuple(sorted(serving, key=lambda pod: pod.name)))


def _build_serving_pod(body: Body, agent: Agent | None) -> ServingPod:
    versions = agent.report.versions if agent and agent.connected else ()
    counters = agent.report.counters if agent else ()
    return ServingPod(
        name=body["metadata"]["name"],
        uid=body["metadata"]["uid"],
        ready=condition_of(body, "Ready") is not None,
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
