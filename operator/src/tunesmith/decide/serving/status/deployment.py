"""Status of an AdapterDeployment, rebuilt each time and written only when it differs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tunesmith.api.actions import ACTION_ANNOTATION
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
from tunesmith.api.status import ContainerRequests
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.fit.engine_fit import EngineFit
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.admission.targets import VersionRecord
from tunesmith.decide.serving.clients.access import REPORTED, access_condition, build_access_status
from tunesmith.decide.serving.clients.usage import UsageRecord
from tunesmith.decide.serving.pods.claims import ClaimLimits, claims_condition, stops_first
from tunesmith.decide.serving.pods.engine_memory import fit_condition
from tunesmith.decide.serving.pods.fleet import Fleet, ServingPod, is_rolled_out
from tunesmith.decide.serving.pods.pod_problem import find_pod_problem, find_refusal
from tunesmith.decide.serving.pods.pod_sets import PodSets
from tunesmith.decide.serving.pods.switching import SetPlan
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.decide.serving.rollout.transition import AliasContext
from tunesmith.decide.serving.rollout.transitions import is_proven
from tunesmith.manifests.engine_container import ENGINE
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_deployment import rolling_update, set_labels
from tunesmith.manifests.serving_service import serving_url
from tunesmith_contract.agent import FEATURES, OTHER, PEERS, PODS, PREVIOUS, REJECTED, LoadState, served_name

from .alias import MAX_MESSAGE, build_adapter_status
from .pod_sets import SwitchWait, build_set_status, service_name_taken
from .size import bounded

#: Minimum interval between writes that change counters only.
WRITE_SECONDS = 10.0
MAX_CONDITION_MESSAGE = 1024

#: Phases of an alias in which the operator has nothing left to do.
_SETTLED = frozenset({Phase.STABLE, Phase.ROLLED_BACK, Phase.DEGRADED})
#: Reasons for which an alias does not move until a person changes something.
_STALLED_REASONS = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_FAILED,
        Reason.DIGEST_REJECTED,
        Reason.INCOMPATIBLE,
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        Reason.ANALYSIS_LIMIT_EXCEEDED,
    }
)
_REPORTED_PHASES = frozenset({Phase.BLOCKED, Phase.DEGRADED})
#: Reasons of an alias in progress that people are told, with the type of the event.
_REPORTED_REASONS: dict[str, Literal["Normal", "Warning"]] = {
    Reason.UNPROVEN: "Warning",
    Reason.PROGRESS_DEADLINE_EXCEEDED: "Warning",
    Reason.ANALYSIS_LIMIT_EXCEEDED: "Warning",
    Reason.STABLE_FAILS_TOO: "Warning",
    Reason.BREAKER_OPEN: "Warning",
    Reason.ENGINE_LOST: "Warning",
    Reason.WAITING_FOR_REQUESTS: "Normal",
}


#: Reason and message of a condition.
Explanation = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ServingState:
    """State of an AdapterDeployment after all transitions of this pass.

    Attributes:
        sets: the sets of pods; the fleet is the one that answers clients.
        set_plan: what happens to the sets.
        wait: why the next set does not answer yet.
        service_is_foreign: a Service of this name belongs to another owner.
        generation: the generation of the desired state.
        aliases: record and context of each alias, ordered by name.
        generations: the generation that a pod must have applied to answer as the record of an alias says, by name.
        versions: all past and present versions.
        obstacle: reason and message why no pod is started or replaced.
        fit: the memory verdict on the engine; None if the last one holds, or without GPUs.
        claims: limits by the access modes of claims; None if the pods mount none.
        foreign_history: name of the ConfigMap that is meant for the history, but belongs to something else.
        action_faults: sentences about what of the annotation for actions can't be done.
        has_network_policy: a NetworkPolicy is made for the pods.
        usage: tokens that clients have used.
    """

    sets: PodSets
    set_plan: SetPlan
    wait: SwitchWait | None
    service_is_foreign: bool
    fleet: Fleet
    generation: int
    aliases: tuple[tuple[AliasRecord, AliasContext], ...]
    generations: Mapping[str, int]
    versions: tuple[VersionRecord, ...]
    obstacle: Explanation | None = None
    fit: EngineFit | None = None
    foreign_history: str = ""
    action_faults: tuple[str, ...] = ()
    claims: ClaimLimits | None = None
    has_network_policy: bool = True
    usage: UsageRecord = field(default_factory=UsageRecord)

    @property
    def observed(self) -> Body | None:
        """The Deployment of the pods that answer clients."""
        return self.sets.serving.deployment if self.sets.serving else None

    @property
    def is_rolled_out(self) -> bool:
        """True if all replicas of the set that answers run its latest pod template and are available."""
        return is_rolled_out(self.observed)

    @property
    def is_busy(self) -> bool:
        """True if something is in progress whose end causes no watch event."""
        loading = bool(self.fleet.pods) and any(
            record.candidate and not is_proven(record, record.candidate, context)
            for record, context in self.aliases
        )
        starting = not self.is_rolled_out and self.obstacle is None
        is_warming_up = self.wait is not None and not self.wait.is_stalled
        return loading or starting or is_warming_up or self.sets.everyone.is_behind(self.generation)


def plan_status(
    deployment: AdapterDeployment, state: ServingState, now: datetime
) -> tuple[dict[str, Any] | None, tuple[Event, ...], float | None]:
    """Status to write, or None; events about aliases with trouble; seconds until counters may be written."""
    adapters = tuple(
        build_adapter_status(record, context, state.versions, state.generations[record.name])
        for record, context in state.aliases
    )
    after = bounded(_build_status(deployment, state, adapters, now))
    before = deployment.status
    if _content(before) == _content(after):
        return None, (), None
    if _significant(before) == _significant(after) and before.update_time is not None:
        age = (now - before.update_time).total_seconds()
        # It may be in the future, of a clock that was set back since.
        if 0 <= age < WRITE_SECONDS:
            return None, (), WRITE_SECONDS - age
    return after.to_dict(), _build_events(before, after, state, adapters), None


def _build_status(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...], now: datetime
) -> AdapterDeploymentStatus:
    stable = sum(adapter.phase is Phase.STABLE for adapter in adapters)
    generation = deployment.metadata.generation
    on_gpus = deployment.spec.engine.gpus > 0
    before = [
        condition.to_dict()
        for condition in deployment.status.conditions
        if (on_gpus or condition.type != ConditionType.FITS)
        and (state.claims or condition.type != ConditionType.VOLUMES_SHARED)
    ]
    conditions = merge_conditions(before, _build_conditions(deployment, state, adapters), generation, now)
    return AdapterDeploymentStatus(
        conditions=tuple(Condition.model_validate(condition) for condition in conditions),
        observed_generation=generation,
        url=None if state.service_is_foreign else serving_url(deployment),
        replicas=len(state.fleet.pods),
        ready_replicas=len(state.fleet.ready),
        next_set=f"{state.wait.ready}/{state.wait.needed}" if state.wait else None,
        selector=",".join(
            f"{key}={value}" for key, value in set_labels(deployment, state.set_plan.number).items()
        ),
        engine_requests=_engine_requests(state.observed),
        access=build_access_status(deployment, state.fleet, state.usage, now),
        adapters_stable=f"{stable}/{len(adapters)}",
        generation=state.generation,
        update_time=now,
        adapters=adapters,
        sets=build_set_status(state.sets, state.set_plan, state.wait),
        pods=tuple(_build_pod_status(pod) for pod in state.sets.everyone.pods[:MAX_PODS]),
    )


def _engine_requests(deployment: Body | None) -> ContainerRequests | None:
    """Requests of the engine in the pod template; a limit without a request is the request, as in Kubernetes."""
    if deployment is None:
        return None
    containers = deployment["spec"]["template"]["spec"]["initContainers"]
    engine = next(container for container in containers if container["name"] == ENGINE)
    resources = engine.get("resources") or {}
    amounts = {**resources.get("limits", {}), **resources.get("requests", {})}
    requests = ContainerRequests(
        cpu=amounts.get("cpu"),
        memory=amounts.get("memory"),
        ephemeral_storage=amounts.get("ephemeral-storage"),
    )
    return requests if requests.to_dict() else None


def _build_pod_status(pod: ServingPod) -> PodStatus:
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
    if pod.lacks_engine:
        return "its engine is starting, was restarted or hangs"
    failures = "; ".join(
        f"{served_name(version.alias, version.digest)}: {version.reason}: {version.message}"
        for version in pod.agent.report.versions
        if version.state is LoadState.FAILED
    )
    return failures[:MAX_MESSAGE] or None


def _build_conditions(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...]
) -> list[ConditionUpdate]:
    """Conditions of the resource. Ready: all adapters are as specified. Available: requests are answered."""
    stalled = next(_stalled_reasons(deployment, state, adapters), None)
    pending = next(_pending_reasons(deployment, state, adapters), None)
    targets = {record.name: context.target for record, context in state.aliases}
    unreachable = [
        (Reason.SOURCE_UNREACHABLE, f"{name}: {target.message}")
        for name, target in targets.items()
        if target.reason == Reason.SOURCE_UNREACHABLE
    ]
    first = (
        stalled or pending or next((_alias_reason(a) for a in adapters if a.phase is not Phase.STABLE), None)
    )
    ready = len(state.fleet.ready)
    return [
        _condition(
            ConditionType.READY, first is None, first or (Reason.ALL_STABLE, "all adapters are stable")
        ),
        _condition(ConditionType.RECONCILING, pending is not None, pending or (Reason.ALL_STABLE, "")),
        _condition(ConditionType.STALLED, stalled is not None, stalled or (Reason.ALL_STABLE, "")),
        _condition(
            ConditionType.AVAILABLE,
            ready > 0,
            (Reason.AVAILABLE if ready else Reason.UNAVAILABLE, f"{ready} pods accept requests"),
        ),
        _condition(
            ConditionType.SOURCES_REACHABLE,
            not unreachable,
            unreachable[0] if unreachable else (Reason.SOURCES_REACHABLE, ""),
        ),
        _condition(
            ConditionType.AGENTS_CURRENT,
            not state.fleet.outdated,
            (Reason.AGENTS_OUTDATED, _outdated_message(state))
            if state.fleet.outdated
            else (Reason.AGENTS_CURRENT, ""),
        ),
        _condition(
            ConditionType.ACTIONS_VALID,
            not state.action_faults,
            (Reason.INVALID_ACTION, _actions_message(state))
            if state.action_faults
            else (Reason.ACTIONS_VALID, ""),
        ),
        access_condition(deployment, state.fleet, state.has_network_policy),
        *([fit_condition(state.fit)] if state.fit else []),
        *([claims_condition(state.claims)] if state.claims else []),
    ]


def _condition(kind: ConditionType, holds: bool, explanation: Explanation) -> ConditionUpdate:
    reason, message = explanation
    return ConditionUpdate(kind.value, "True" if holds else "False", str(reason), message)


def _alias_reason(adapter: AdapterStatus) -> Explanation:
    return adapter.reason or "", f"{adapter.name}: {adapter.message}"


def _stalled_reasons(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...]
) -> Iterator[Explanation]:
    """Causes that a person must fix."""
    if state.obstacle:
        yield state.obstacle
    if state.service_is_foreign:
        yield service_name_taken(deployment)
    if state.claims and state.claims.one_pod and deployment.spec.replicas > 1:
        yield Reason.CLAIM_NOT_SHARED, state.claims.message
    if state.foreign_history:
        message = f"ConfigMap {state.foreign_history} is not Tunesmith's: delete it, or give this resource another name"
        yield Reason.HISTORY_NAME_TAKEN, message
    if deployment.refused_aliases:
        yield Reason.INVALID_ALIAS, _refused_aliases_message(deployment)
    if state.wait and state.wait.is_stalled:
        yield state.wait.reason, state.wait.message
    access = access_condition(deployment, state.fleet, state.has_network_policy)
    if access.reason == Reason.NO_CLIENTS:
        yield access.reason, access.message
    for adapter in adapters:
        if _is_stalled(adapter):
            yield _alias_reason(adapter)


def _refused_aliases_message(deployment: AdapterDeployment) -> str:
    names = ", ".join(deployment.refused_aliases)
    faults = "; ".join(deployment.refused_aliases.values())
    message = (
        f"{faults} Until {names} is renamed in spec.adapters, it stays at its stable version, and an artifact that its "
        "source names is not rolled out"
    )
    return message[:MAX_CONDITION_MESSAGE]


def _is_stalled(adapter: AdapterStatus) -> bool:
    if (adapter.phase, adapter.reason) == (Phase.DEGRADED, Reason.ERROR_RATE_TOO_HIGH):
        return True
    return adapter.reason in _STALLED_REASONS and adapter.phase is not Phase.ROLLING_BACK


def _pending_reasons(
    deployment: AdapterDeployment, state: ServingState, adapters: tuple[AdapterStatus, ...]
) -> Iterator[Explanation]:
    """Causes that resolve without a person."""
    if state.obstacle:
        return
    if state.wait and not state.wait.is_stalled:
        yield state.wait.reason, f"{state.wait.message}{_claims_note(state)}"
    if not state.is_rolled_out:
        yield _pods_pending(deployment, state)
    for adapter in adapters:
        if adapter.phase not in _SETTLED and not _is_stalled(adapter):
            yield _alias_reason(adapter)


def _pods_pending(deployment: AdapterDeployment, state: ServingState) -> Explanation:
    if (refusal := find_refusal(state.observed or {})) is not None:
        return Reason.UNAVAILABLE, refusal
    for pod in state.fleet.pods:
        if problem := find_pod_problem(pod.body):
            if problem.reason is Reason.UNSCHEDULABLE and _needs_spare_gpus(deployment, state):
                return Reason.WAITING_FOR_GPU, _spare_gpu_message(deployment, pod, problem.message)
            return problem.reason, f"pod {pod.name}: {problem.message}{_claims_note(state)}"
    replicas = (state.observed or {}).get("spec", {}).get("replicas", 0)
    silent = [pod.name for pod in state.fleet.pods if pod.lacks_engine]
    note = f"; no engine answers in {', '.join(silent[:3])}" if silent else ""
    message = f"{len(state.fleet.ready)} of {replicas} pods are ready{note}{_claims_note(state)}"
    return Reason.ENGINE_STARTING, message


def _claims_note(state: ServingState) -> str:
    """Limits by claims, behind another message: a pod that waits for its volume has no other trace of the cause."""
    return f". {state.claims.message}" if state.claims and state.claims.message else ""


def _needs_spare_gpus(deployment: AdapterDeployment, state: ServingState) -> bool:
    """True if all old pods keep their GPUs until a new pod is ready on others."""
    limits = state.claims or ClaimLimits()
    update = rolling_update(deployment.spec.replicas, deployment.spec.engine, stops_first(deployment, limits))
    has_old = len(state.fleet.ready) >= deployment.spec.replicas > 0
    return deployment.spec.engine.gpus > 0 and has_old and update["maxUnavailable"] == 0


def _spare_gpu_message(deployment: AdapterDeployment, pod: ServingPod, cause: str) -> str:
    return (
        f"the new pod {pod.name} waits for {deployment.spec.engine.gpus} spare GPUs, because the old one answers until "
        f"it is ready ({cause}). Free the GPUs, or write engine.updateStrategy: StopFirst to remove the old pod first, "
        "and no pod answers meanwhile"
    )


def _build_events(
    before: AdapterDeploymentStatus,
    after: AdapterDeploymentStatus,
    state: ServingState,
    adapters: tuple[AdapterStatus, ...],
) -> tuple[Event, ...]:
    """Events about what was not in the status before."""
    reported = {(adapter.name, adapter.phase, adapter.reason) for adapter in before.adapters}
    events = [
        Event(
            adapter.reason or adapter.phase,
            f"{adapter.name}: {adapter.message}",
            _REPORTED_REASONS.get(adapter.reason or "", "Warning"),
        )
        for adapter in adapters
        if (adapter.phase in _REPORTED_PHASES or adapter.reason in _REPORTED_REASONS)
        and (adapter.name, adapter.phase, adapter.reason) not in reported
    ]
    current = next((each for each in before.conditions if each.type == ConditionType.AGENTS_CURRENT), None)
    if state.fleet.outdated and (current is None or current.status != "False"):
        events.append(Event(Reason.AGENTS_OUTDATED, _outdated_message(state), "Warning"))
    if state.wait and (event := _tell_wait(before, state.wait)):
        events.append(event)
    told = next((each for each in before.conditions if each.type == ConditionType.ACTIONS_VALID), None)
    faults = _actions_message(state)
    if state.action_faults and (told is None or told.status != "False" or told.message != faults):
        events.append(Event(Reason.INVALID_ACTION, faults, "Warning"))
    access, told = (
        next((each for each in status.conditions if each.type == ConditionType.ACCESS_RESTRICTED), None)
        for status in (after, before)
    )
    if access and access.reason in REPORTED and (told is None or told.message != access.message):
        events.append(Event(access.reason, access.message, "Warning"))
    return tuple(events)


def _tell_wait(before: AdapterDeploymentStatus, wait: SwitchWait) -> Event | None:
    """Warning about a switch that does not come by itself, when its cause is new."""
    is_told = any(condition.reason == wait.reason for condition in before.conditions)
    if is_told or not (wait.is_stalled or wait.reason == Reason.WAITING_FOR_GPU):
        return None
    return Event(wait.reason, wait.message, "Warning")


#: What agents that lack a feature do not do.
_WITHHELD = {
    OTHER: "take over from pods on another base model",
    PREVIOUS: "keep the previous version loaded after a promotion, so that a rollback loads it anew",
    REJECTED: "refuse a version that was rolled back if they start from an old file",
    PEERS: "forward requests to the pods that hold an adapter, nor accept such requests",
    PODS: "require keys of clients",
}


def _outdated_message(state: ServingState) -> str:
    pods = state.fleet.outdated
    names = ", ".join(pod.name for pod in pods[:3]) + (" and others" if len(pods) > 3 else "")
    missing = {
        feature
        for pod in pods
        if pod.agent
        for feature in FEATURES
        if feature not in pod.agent.report.features
    }
    withheld = "; and do not ".join(_WITHHELD[feature] for feature in FEATURES if feature in missing)
    return (
        f"{len(pods)} of {len(state.fleet.pods)} pods ({names}) run an agent of an earlier release: they do not "
        f"{withheld}. Set engine.image to a serving image of this release"
    )


def _actions_message(state: ServingState) -> str:
    return f"annotation {ACTION_ANNOTATION}: {'; '.join(state.action_faults)}"[:MAX_CONDITION_MESSAGE]


def _content(status: AdapterDeploymentStatus) -> dict[str, Any]:
    return status.model_copy(update={"update_time": None}).to_dict()


def _significant(status: AdapterDeploymentStatus) -> dict[str, Any]:
    """Status without counters and messages that contain counters: its changes are written at once."""
    content = status.model_dump(mode="json", exclude={"update_time", "pods"})
    for budget in (content["access"] or {}).get("budgets", ()):
        budget.pop("used")
    for pods in content["sets"]:
        pods.pop("message")
    for condition in content["conditions"]:
        condition.pop("message")
    for adapter in content["adapters"]:
        adapter.pop("message")
        for version in (adapter["stable"], adapter["candidate"]):
            if version:
                version.pop("loaded_on")
                version.pop("analysis", None)
    return content
