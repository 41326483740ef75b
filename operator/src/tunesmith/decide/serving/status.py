"""The status of an AdapterDeployment: made anew each time, written only when it says something new."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.adapterdeployment import (
    MAX_PODS,
    AdapterDeployment,
    AdapterDeploymentStatus,
    AdapterStatus,
    PodStatus,
)
from tunesmith.api.common import Condition
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import AdapterPhase as Phase
from tunesmith.api.reasons import ConditionType
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.plan import Event
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_service import serving_service_name, serving_url
from tunesmith_contract.agent import LoadState, served_name

from .alias_status import MAX_MESSAGE, build_adapter_status
from .fleet import Fleet, ServingPod
from .pod_problem import find_pod_problem
from .record import AliasRecord
from .rollout import Facts
from .sources import VersionRecord

#: Numbers alone are not written more often.
WRITE_SECONDS = 10.0

#: Phases in which nothing is left to do.
_SETTLED = frozenset({Phase.STABLE, Phase.ROLLED_BACK, Phase.DEGRADED})
#: Why a name can't go on before a person changes something.
_STUCK = frozenset({Reason.SOURCE_UNREACHABLE, Reason.SOURCE_FAILED, Reason.DIGEST_REJECTED})
_ENDED = frozenset({Phase.BLOCKED, Phase.ROLLED_BACK, Phase.DEGRADED})
_TOLD = frozenset({Phase.BLOCKED, Phase.DEGRADED})


@dataclass(frozen=True, slots=True)
class ServingState:
    """What is known once all moves are made.

    Attributes:
        observed: the Deployment of the pods.
        service_is_foreign: an object of another owner has the Service's name.
        generation: of the desired state.
        aliases: record and facts by stable name, in the order of the names.
        versions: all versions that ever were.
    """

    observed: Body | None
    service_is_foreign: bool
    fleet: Fleet
    generation: int
    aliases: tuple[tuple[AliasRecord, Facts], ...]
    versions: tuple[VersionRecord, ...]

    @property
    def is_rolled_out(self) -> bool:
        """Whether all pods there should be are of the latest template and ready."""
        if self.observed is None:
            return False
        status, wanted = self.observed.get("status", {}), self.observed["spec"].get("replicas", 1)
        seen = status.get("observedGeneration", 0) >= self.observed["metadata"].get("generation", 0)
        counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
        return seen and all(count == wanted for count in counts)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way that no watch tells of."""
        loading = any(
            record.trial and not facts.fleet.is_proved(record.name, record.trial.version.digest)
            for record, facts in self.aliases
        )
        return loading or not self.is_rolled_out or self.fleet.is_behind(self.generation)


def plan_status(
    deployment: AdapterDeployment, state: ServingState, now: datetime
) -> tuple[dict[str, Any] | None, tuple[Event, ...], float | None]:
    """The status to write, or None; events about names that can't go on; seconds until numbers may be written."""
    adapters = tuple(build_adapter_status(record, facts, state.versions) for record, facts in state.aliases)
    after = _build_status(deployment, state, adapters, now)
    before = deployment.status
    if _content(before) == _content(after):
        return None, (), None
    if _significant(before) == _significant(after) and before.update_time is not None:
        wait = WRITE_SECONDS - (now - before.update_time).total_seconds()
        if wait > 0:
            return None, (), wait
    return after.to_dict(), _build_events(before, adapters), None


def _build_status(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...], now: datetime
) -> AdapterDeploymentStatus:
    stable = sum(adapter.phase is Phase.STABLE for adapter in adapters)
    generation = deployment.metadata.generation
    before = [condition.to_dict() for condition in deployment.status.conditions]
    conditions = merge_conditions(before, _judge(deployment, state, adapters), generation, now)
    return AdapterDeploymentStatus(
        conditions=tuple(Condition.model_validate(condition) for condition in conditions),
        observed_generation=generation,
        url=None if state.service_is_foreign else serving_url(deployment),
        replicas=len(state.fleet.pods),
        ready_replicas=len(state.fleet.ready),
        adapters_stable=f"{stable}/{len(adapters)}",
        generation=state.generation,
        update_time=now,
        adapters=adapters,
        pods=tuple(_build_pod(pod, state) for pod in state.fleet.pods[:MAX_PODS]),
    )


def _build_pod(pod: ServingPod, state: ServingState) -> PodStatus:
    versions = pod.agent.report.versions if pod.agent else ()
    active = {
        served_name(version.alias, version.digest)
        for version in versions
        if version.state is LoadState.ACTIVE
    }
    return PodStatus(
        name=pod.name,
        ready=pod.ready,
        generation=pod.generation,
        loaded=tuple(sorted(active)),
        message=_pod_message(pod),
    )


def _pod_message(pod: ServingPod) -> str | None:
    if problem := find_pod_problem(pod.body):
        return f"{problem.reason}: {problem.message}"[:MAX_MESSAGE]
    if pod.agent is None or not pod.agent.connected:
        return "its agent is not connected to the operator" if pod.ready else None
    failed = [version for version in pod.agent.report.versions if version.state is LoadState.FAILED]
    said = "; ".join(f"{served_name(one.alias, one.digest)}: {one.reason}: {one.message}" for one in failed)
    return said[:MAX_MESSAGE] or None


def _judge(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...]
) -> list[ConditionUpdate]:
    """The conditions: Ready says that all is as it was written, Available that requests are answered."""
    stuck = next(_stuck(deployment, state, adapters), None)
    pending = next(_pending(state, adapters), None)
    unreachable = [adapter for adapter in adapters if adapter.reason == Reason.SOURCE_UNREACHABLE]
    first = stuck or pending or next(_broken(adapters), None)
    ready = len(state.fleet.ready)
    return [
        _condition(
            ConditionType.READY, first is None, first or (Reason.ALL_STABLE, "all adapters are stable")
        ),
        _condition(ConditionType.RECONCILING, pending is not None, pending or (Reason.ALL_STABLE, "")),
        _condition(ConditionType.STALLED, stuck is not None, stuck or (Reason.ALL_STABLE, "")),
        _condition(
            ConditionType.AVAILABLE,
            ready > 0,
            (Reason.AVAILABLE if ready else Reason.UNAVAILABLE, f"{ready} pods take requests"),
        ),
        _condition(
            ConditionType.SOURCES_REACHABLE,
            not unreachable,
            _said(unreachable[0]) if unreachable else (Reason.SOURCES_REACHABLE, ""),
        ),
    ]


Said = tuple[str, str]


def _condition(kind: ConditionType, holds: bool, said: Said) -> ConditionUpdate:
    return ConditionUpdate(kind.value, "True" if holds else "False", str(said[0]), said[1])


def _said(adapter: AdapterStatus) -> Said:
    return adapter.reason or "", f"{adapter.name}: {adapter.message}"


def _stuck(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...]
) -> Iterator[Said]:
    """What a person has to change."""
    if state.service_is_foreign:
        name = serving_service_name(deployment)
        message = f"Service {name} belongs to something else: remove it, or name this resource differently"
        yield Reason.SERVICE_NAME_TAKEN, message
    for adapter in adapters:
        if adapter.reason in _STUCK and adapter.phase in _ENDED:
            yield _said(adapter)


def _pending(state: ServingState, adapters: tuple[AdapterStatus, ...]) -> Iterator[Said]:
    """What time, another object or a pod will change."""
    if not state.is_rolled_out:
        yield _pods_pending(state)
    for adapter in adapters:
        if adapter.phase not in _SETTLED and not (
            adapter.phase is Phase.BLOCKED and adapter.reason in _STUCK
        ):
            yield _said(adapter)


def _pods_pending(state: ServingState) -> Said:
    for condition in (state.observed or {}).get("status", {}).get("conditions", ()):
        if (condition["type"], condition["status"]) == ("ReplicaFailure", "True"):
            return Reason.UNAVAILABLE, condition.get("message", "")
    for pod in state.fleet.pods:
        if problem := find_pod_problem(pod.body):
            return problem.reason, f"pod {pod.name}: {problem.message}"
    wanted = (state.observed or {}).get("spec", {}).get("replicas", 0)
    return Reason.ENGINE_STARTING, f"{len(state.fleet.ready)} of {wanted} pods are ready"


def _broken(adapters: tuple[AdapterStatus, ...]) -> Iterator[Said]:
    """Names that are served worse than they should be."""
    return (_said(adapter) for adapter in adapters if adapter.phase is not Phase.STABLE)


def _build_events(before: AdapterDeploymentStatus, adapters: tuple[AdapterStatus, ...]) -> tuple[Event, ...]:
    known = {(adapter.name, adapter.phase, adapter.reason) for adapter in before.adapters}
    return tuple(
        Event(adapter.reason or adapter.phase, f"{adapter.name}: {adapter.message}", "Warning")
        for adapter in adapters
        if adapter.phase in _TOLD and (adapter.name, adapter.phase, adapter.reason) not in known
    )


def _content(status: AdapterDeploymentStatus) -> dict[str, Any]:
    return status.model_copy(update={"update_time": None}).to_dict()


def _significant(status: AdapterDeploymentStatus) -> dict[str, Any]:
    """What is written at once: all but counts, and sentences that hold counts."""
    content = status.model_dump(mode="json", exclude={"update_time", "pods"})
    for condition in content["conditions"]:
        condition.pop("message")
    for adapter in content["adapters"]:
        adapter.pop("message")
        for version in (adapter["stable"], adapter["candidate"]):
            if version:
                version.pop("loaded_on")
                version.pop("analysis", None)
    return content
