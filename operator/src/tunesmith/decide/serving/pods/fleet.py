"""State of the serving pods: readiness, loaded versions and request counters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.decide.objects import condition_of, is_deleting, is_finished, parse_time
from tunesmith.decide.serving.evidence import Counts, Reading
from tunesmith.manifests.objects import Body
from tunesmith_contract.agent import (
    FEATURES,
    MAX_GENERATION,
    PROOF_FAILED,
    UNPROVEN,
    AgentReport,
    DesiredState,
    LoadedVersion,
    LoadState,
    VersionCounters,
)

#: Reason of an active version on agents of the first release that send it no more requests.
_BREAKER_OPEN = "BreakerOpen"
#: Reasons for which agents of the first release do not try again, whatever happens to the pod.
_FINAL_REASONS = frozenset({"InvalidManifest", "NoProbes", "InvalidUri", "EngineRefused"})
#: Counts of an agent that has counted no request of a version.
_NOTHING = Counts()
#: Pods that must agree that a version is at fault, where there are as many.
AGREEING_PODS = 2


@dataclass(frozen=True, slots=True)
class Agent:
    """Latest report of one run of a pod's agent, and the state of its connection.

    Attributes:
        ended: another run has followed, or the pod is gone: only its counters matter.
        told: this operator has sent it a state.
    """

    report: AgentReport
    connected: bool
    ended: bool = False
    told: bool = True


@dataclass(frozen=True, slots=True)
class ServingPod:
    """One serving pod with its agent.

    Attributes:
        ready: the pod accepts requests.
        agent: None until the first report of its agent.
        versions: the versions on a connected agent, by alias and digest.
        created: the time at which the pod was created; None if it is unknown.
        body: the Pod object.
    """

    name: str
    uid: str
    ready: bool
    agent: Agent | None
    versions: Mapping[tuple[str, str], LoadedVersion]
    created: datetime | None
    body: Body

    def version(self, alias: str, digest: str) -> LoadedVersion | None:
        """Load state of a version on this pod, if its agent is connected and has the version."""
        return self.versions.get((alias, digest))

    def has_active(self, alias: str, digest: str) -> bool:
        """True if the version is verified to be active on this pod."""
        version = self.version(alias, digest)
        return version is not None and version.state is LoadState.ACTIVE

    @property
    def generation(self) -> int:
        """Generation of the desired state that the pod applied last."""
        return self.agent.report.applied_generation if self.agent else 0

    @property
    def lacks_engine(self) -> bool:
        """True if its connected agent says that the engine does not answer."""
        return self.agent is not None and self.agent.connected and not self.agent.report.engine_ready


@dataclass(frozen=True, slots=True)
class Fleet:
    """All serving pods that are not being deleted, ordered by name.

    Attributes:
        uids: UIDs of all existing pods, also of other sets and of those that are being deleted: agents of these may
            come back to an operator that was restarted, with requests that were counted before.
        ended: the last reports of agents that have ended, also of pods that are gone.
        counters: the counters of each version, by alias and digest, with the reports that have them.
    """

    pods: tuple[ServingPod, ...]
    uids: frozenset[str] = frozenset()
    ended: tuple[AgentReport, ...] = ()
    counters: Mapping[tuple[str, str], list[tuple[AgentReport, VersionCounters]]] = field(
        default_factory=dict
    )

    @property
    def ready(self) -> tuple[ServingPod, ...]:
        """Pods that accept requests."""
        return tuple(pod for pod in self.pods if pod.ready)

    @property
    def generation(self) -> int:
        """Highest generation of the desired state that any pod applied, and can have been told."""
        return max((pod.generation for pod in self.pods if pod.generation <= MAX_GENERATION), default=0)

    def is_behind(self, generation: int) -> bool:
        """True if a connected agent has not applied this generation yet."""
        return any(pod.agent and pod.agent.connected and pod.generation < generation for pod in self.pods)

    @property
    def is_connected(self) -> bool:
        """True if the agents of all ready pods are connected to this operator."""
        return all(pod.agent is not None and pod.agent.connected for pod in self.ready)

    @property
    def has_agents(self) -> bool:
        """True if any pod's agent is connected to this operator."""
        return any(pod.agent is not None and pod.agent.connected for pod in self.pods)

    @property
    def is_told(self) -> bool:
        """True if this operator has sent a state to each connected agent."""
        return all(pod.agent.told for pod in self.pods if pod.agent and pod.agent.connected)

    def active_on(self, alias: str, digest: str) -> int:
        """Number of ready pods on which the version is verified to be active."""
        return sum(pod.has_active(alias, digest) for pod in self.ready)

    def is_active_since(self, alias: str, digest: str, began: datetime) -> bool:
        """True if the version is active on every ready pod that is older than ``began``, and on at least one pod.

        Younger pods get their versions before they are ready.
        """
        awaited = [pod for pod in self.ready if pod.created is None or pod.created <= began] or self.ready
        return bool(awaited) and all(pod.has_active(alias, digest) for pod in awaited)

    def is_active_on_half(self, alias: str, digest: str) -> bool:
        """True if the version is active on at least half of the ready pods and there is at least one."""
        return bool(self.ready) and 2 * self.active_on(alias, digest) >= len(self.ready)

    @property
    def is_heard(self) -> bool:
        """True if the agent of a ready pod is connected."""
        return any(pod.agent and pod.agent.connected for pod in self.ready)

    def has_confirmed(self, alias: str, digest: str, generation: int) -> bool:
        """True if a ready pod has the version active and applied this generation, or no agent can say so now."""
        heard = [pod for pod in self.ready if pod.agent is not None and pod.agent.connected]
        return not heard or any(
            pod.generation >= generation and pod.has_active(alias, digest) for pod in heard
        )

    def open_breakers(self, alias: str, digest: str) -> tuple[str, ...]:
        """Names of pods that send no more requests to the version, because so many failed in a row."""
        versions = ((pod.name, pod.version(alias, digest)) for pod in self.pods)
        return tuple(
            name
            for name, version in versions
            if version and (version.breaker_open or version.reason == _BREAKER_OPEN)
        )

    def breaker_clients(self, alias: str, digest: str) -> int:
        """Most clients that saw errors in a row on one pod, which opened its breaker."""
        versions = (pod.version(alias, digest) for pod in self.pods)
        return max((version.breaker_clients for version in versions if version), default=0)

    def refutation(self, alias: str, digest: str) -> str:
        """Message of a pod whose proof failed, once a second one agrees or if there is only one; else empty."""
        refuted = [
            (pod, failed)
            for pod, failed in self.failures(alias, digest)
            if failed.reason == PROOF_FAILED and not failed.permanent
        ]
        connected = sum(pod.agent is not None and pod.agent.connected for pod in self.pods)
        if not refuted or len(refuted) < min(AGREEING_PODS, connected):
            return ""
        pod, failed = refuted[0]
        return f"{failed.message or 'the adapter is not active'} (pod {pod.name})"

    def final_failure(self, alias: str, digest: str) -> tuple[ServingPod, LoadedVersion] | None:
        """A pod that says that the version can't be loaded by any pod, however often it is tried."""
        failures = self.failures(alias, digest)
        if permanent := next((pair for pair in failures if pair[1].permanent), None):
            return permanent
        old = [pair for pair in failures if pair[1].reason in _FINAL_REASONS and _is_first_release(pair[0])]
        return old[0] if old and len(old) == len(self.pods) else None

    def disagrees(self, desired: DesiredState) -> bool:
        """True if a pod applied another content under the generation of this state."""
        applied = {
            (report.features, report.applied_digest)
            for pod in self.pods
            if pod.agent is not None and (report := pod.agent.report).applied_digest
            if report.applied_generation == desired.generation
        }
        expected = {features: desired.for_features(features).digest() for features, _ in applied}
        return any(digest != expected[features] for features, digest in applied)

    @property
    def outdated(self) -> tuple[ServingPod, ...]:
        """Pods with connected agents that do not understand the whole desired state."""
        return tuple(
            pod
            for pod in self.pods
            if pod.agent and pod.agent.connected and not set(FEATURES) <= set(pod.agent.report.features)
        )

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

    def readings(self, alias: str, digest: str) -> tuple[Reading, ...]:
        """Counters of the version in each run of an agent; one that has not counted its requests yet counts none."""
        counted = [
            Reading(pod_uid=report.pod_uid, boot_id=report.boot_id, counts=Counts.of(counters))
            for report, counters in self.counters.get((alias, digest), ())
        ]
        boots = {reading.boot_id for reading in counted}
        # Agents of pods that do not answer now are among the ended ones.
        known = (*self.ended, *(pod.agent.report for pod in self.pods if pod.agent is not None))
        silent = (report for report in known if report.boot_id not in boots)
        nothing = (Reading(pod_uid=r.pod_uid, boot_id=r.boot_id, counts=_NOTHING) for r in silent)
        return (*counted, *nothing)


def build_fleet(
    pods: Iterable[Body], agents: Iterable[Agent], existing: Iterable[Body] | None = None
) -> Fleet:
    """Fleet of the pods with the reports of their agents; of other pods only the counters matter.

    Args:
        existing: all pods of the resource, if there are others.
    """
    pods, agents = tuple(pods), tuple(agents)
    by_uid = {agent.report.pod_uid: agent for agent in agents if not agent.ended}
    alive = (pod for pod in pods if not is_deleting(pod) and not is_finished(pod))
    serving = [_build_serving_pod(pod, by_uid.get(pod["metadata"]["uid"])) for pod in alive]
    current = {id(pod.agent) for pod in serving if pod.agent is not None}
    ended = tuple(agent.report for agent in agents if id(agent) not in current)
    reports = (*ended, *(pod.agent.report for pod in serving if pod.agent is not None))
    by_version: dict[tuple[str, str], list[tuple[AgentReport, VersionCounters]]] = {}
    for report in reports:
        for counters in report.counters:
            by_version.setdefault((counters.alias, counters.digest), []).append((report, counters))
    uids = frozenset(pod["metadata"]["uid"] for pod in (pods if existing is None else existing))
    return Fleet(tuple(sorted(serving, key=lambda pod: pod.name)), uids, ended, by_version)


def _build_serving_pod(body: Body, agent: Agent | None) -> ServingPod:
    versions = agent.report.versions if agent and agent.connected else ()
    return ServingPod(
        name=body["metadata"]["name"],
        uid=body["metadata"]["uid"],
        ready=condition_of(body, "Ready") is not None,
        agent=agent,
        versions={(version.alias, version.digest): version for version in versions},
        created=parse_time(body["metadata"].get("creationTimestamp")),
        body=body,
    )


def _is_first_release(pod: ServingPod) -> bool:
    return pod.agent is not None and not pod.agent.report.features


def is_rolled_out(deployment: Body | None) -> bool:
    """True if all replicas of the observed Deployment run its latest pod template and are available."""
    if deployment is None:
        return False
    status, replicas = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    is_observed = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    return bool(is_observed) and all(count == replicas for count in counts)
