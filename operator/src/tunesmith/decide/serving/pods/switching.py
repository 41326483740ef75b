"""Change of engine or image: a second set of pods is warmed up beside the one that answers, then the Service switches.

    spec met by the serving set ──change──▶ next set warms up ──complete──▶ Service selects it ──delay──▶ former removed
              ▲                                  │                                  │
              └───────────change back────────────┴───────────change back────────────┘

Everything follows from the observed Deployments and the Service, so an operator may end between any two actions. There
are never more than two sets: another change replaces the one that does not answer.

A set is complete when as many of its pods as answer now are ready, have applied the latest state, and hold each version
that gets requests. Versions that were replaced a short while ago are waited for too, within limits, so that a way back
is as quick after the switch as before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeploymentSpec, UpdateStrategy
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.objects import parse_time
from tunesmith.decide.plan import Action, Apply, Delete, Event, Patch
from tunesmith.manifests.applied import is_applied, with_applied
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.serving_deployment import FIRST_SET, mounted_secret, operator_url
from tunesmith.manifests.serving_service import Switch
from tunesmith_contract.agent import PREVIOUS, LoadState, Version

from .fleet import Fleet, ServingPod
from .pod_sets import PodSet, PodSets


@dataclass(frozen=True, slots=True)
class WantedPods:
    """Pods that the spec asks for.

    Attributes:
        basis: what decides the engine, and the URL of the operator.
        secret: name of the Secret that opens adapters.
        generation: generation of the spec.
        build: gives the Deployment of the set of this number.
    """

    spec: AdapterDeploymentSpec
    basis: Mapping[str, Any]
    secret: str | None
    generation: int
    build: Callable[[int], KubernetesObject]

    def are_in(self, deployment: Body) -> bool:
        """True if the observed Deployment has these pods, perhaps with another URL of the operator."""
        basis = {**self.basis, "operatorUrl": operator_url(deployment)}
        # The Secret is compared with the pods: the basis of earlier releases lacks it.
        return is_applied(deployment, basis) and mounted_secret(deployment) == self.secret

    def apply(self, number: int) -> Apply:
        """Application of the Deployment of this set."""
        return Apply(with_applied(self.build(number), self.basis))


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """Version that stays loaded after its successor was promoted.

    Attributes:
        seconds: the age of a set up to which it is waited for.
    """

    alias: str
    version: Version
    seconds: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What a set must have before it may answer.

    Attributes:
        generation: generation of the desired state.
        versions: the versions that get requests, with their aliases.
        kept: the versions that stay loaded for a way back. A pod that can't load one does without.
        blocked: reason and sentence why no other set may begin or answer; None if nothing prevents it.
    """

    generation: int
    versions: tuple[tuple[str, Version], ...]
    kept: tuple[KeptVersion, ...] = ()
    blocked: tuple[str, str] | None = None

    def at(self, candidate: PodSet, now: datetime) -> "Demand":
        """The demand on this set: of the kept versions, those that it is still given time for."""
        created = parse_time(candidate.deployment["metadata"].get("creationTimestamp"))
        age = (now - created).total_seconds() if created else 0.0
        return replace(self, kept=tuple(each for each in self.kept if age < each.seconds))


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Next actions on the sets.

    Attributes:
        actions: on Deployments.
        number: number of the set that the Service shall select.
        switch: the latest change of that set.
        target: the set that the spec asks for; None before it exists.
        events: about sets that begin, answer, or go.
        removal_seconds: seconds until the former set is removed; None if there is none.
    """

    actions: tuple[Action, ...] = ()
    number: int = FIRST_SET
    switch: Switch | None = None
    target: PodSet | None = None
    events: tuple[Event, ...] = ()
    removal_seconds: float | None = None


def replaces_in_place(spec: AdapterDeploymentSpec, stops_first: bool) -> bool:
    """True if pods are replaced one after the other, within their set.

    Args:
        stops_first: claims may keep a new pod from ever starting beside an old one.
    """
    strategy = spec.engine.update_strategy
    if strategy is UpdateStrategy.AUTO:
        return stops_first
    return strategy is not UpdateStrategy.SECOND_SET


def keep_sets(sets: PodSets) -> SetPlan:
    """Plan that changes nothing."""
    return SetPlan(number=sets.number or FIRST_SET, switch=sets.switch, target=sets.serving)


def plan_sets(sets: PodSets, wanted: WantedPods, demand: Demand, in_place: bool, now: datetime) -> SetPlan:
    """Next actions on the sets.

    Args:
        in_place: pods are replaced within their set.
    """
    serving = sets.serving
    if serving is None:
        return SetPlan(actions=(wanted.apply(FIRST_SET),))
    target = _choose_target(sets, serving, wanted, in_place)
    if target is None:
        return _begin_set(sets, serving, wanted, is_blocked=demand.blocked is not None)
    chosen = _choose_serving(sets, serving, target, wanted, demand.at(target, now))
    actions = list(_update(target, wanted))
    if serving is not target:
        actions += _scale(serving, wanted.spec.replicas)
    if chosen is not serving:
        return SetPlan(
            actions=tuple(actions),
            number=chosen.number,
            switch=Switch(serving.number, now),
            target=target,
            events=(_tell_switch(serving, chosen, target),),
        )
    removal: float | None = None
    for idle in sets.others:
        if idle is target:
            continue
        # Pods on another base model answer differently: none of them stays for clients with open connections.
        stays = serving is target and idle.model == serving.model
        left = _seconds_left(idle, sets.switch, wanted, now) if stays else 0.0
        if left > 0:
            removal = left
        else:
            actions.append(Delete.of(idle.deployment))
    return SetPlan(tuple(actions), serving.number, sets.switch, target, removal_seconds=removal)


def _choose_target(sets: PodSets, serving: PodSet, wanted: WantedPods, in_place: bool) -> PodSet | None:
    """The set that shall have the wanted pods; None for a new one."""
    if wanted.are_in(serving.deployment):
        return serving
    for other in sets.others:
        # One that answered before only needs a switch. One that never did gives way to the other order of updates.
        if wanted.are_in(other.deployment) and not (in_place and not _is_former(other, sets.switch)):
            return other
    return serving if in_place else None


def _is_former(idle: PodSet, switch: Switch | None) -> bool:
    return switch is not None and switch.former == idle.number


def _begin_set(sets: PodSets, serving: PodSet, wanted: WantedPods, is_blocked: bool) -> SetPlan:
    """Begin the next set, in place of any that does not answer.

    Args:
        is_blocked: it must not begin yet.
    """
    room = (
        *_scale(serving, wanted.spec.replicas),
        *(Delete.of(other.deployment) for other in sets.others),
    )
    if is_blocked:
        return SetPlan(actions=room, number=serving.number, switch=sets.switch)
    # A generation is given once, so no pod of a removed set is taken for one of this set.
    number = max(wanted.generation, *(each.number + 1 for each in sets.all))
    begin = wanted.apply(number)
    message = (
        f"the pods of {begin.manifest['metadata']['name']} start and load all adapters, {serving.name} answers until "
        "they are ready"
    )
    return SetPlan(
        actions=(*room, begin),
        number=serving.number,
        switch=sets.switch,
        events=(Event(Reason.WARMING_UP, message),),
    )


def _choose_serving(
    sets: PodSets, serving: PodSet, target: PodSet, wanted: WantedPods, demand: Demand
) -> PodSet:
    """The set that shall answer: the wanted one when it is complete, another one while no pod of it is ready."""
    replicas = wanted.spec.replicas
    needed = min(replicas, max(len(serving.fleet.ready), 1))
    if not serving.fleet.ready:
        # While nobody answers, what a way back needs is not waited for.
        demand = replace(demand, kept=())
    if target is not serving:
        # A set of another size is no obstacle: the switch must not lower the number of pods that answer.
        is_complete = len(complete_pods(target, serving.fleet, demand)) >= needed
        return target if is_complete and demand.blocked is None else serving
    if serving.fleet.ready or replicas == 0:
        return serving
    answering = (other for other in sets.others if complete_pods(other, serving.fleet, demand))
    return next(answering, serving)


def complete_pods(candidate: PodSet, serving: Fleet, demand: Demand) -> tuple[ServingPod, ...]:
    """Pods of a set that could answer clients in place of those of the serving one."""
    required = [
        (alias, version.digest)
        for alias, version in demand.versions
        if not _is_excused(alias, version.digest, candidate.fleet, serving)
    ]
    return tuple(
        pod
        for pod in candidate.fleet.ready
        if pod.agent is not None
        and pod.agent.connected
        and pod.generation >= demand.generation
        and all(pod.has_active(alias, digest) for alias, digest in required)
        and not any(_is_awaited(kept, pod) for kept in demand.kept)
    )


def _is_awaited(kept: KeptVersion, pod: ServingPod) -> bool:
    """True if the pod is still to load the version; agents of earlier releases keep none."""
    if pod.agent is None or PREVIOUS not in pod.agent.report.features:
        return False
    version = pod.version(kept.alias, kept.version.digest)
    return version is None or version.state is LoadState.LOADING


def _is_excused(alias: str, digest: str, candidate: Fleet, serving: Fleet) -> bool:
    """True if no client loses the version by the switch: it fails on each pod that could answer with it."""
    judged = serving.ready or candidate.ready
    versions = [pod.version(alias, digest) for pod in judged]
    return bool(versions) and all(
        version is not None and version.state is LoadState.FAILED for version in versions
    )


def _update(target: PodSet, wanted: WantedPods) -> tuple[Action, ...]:
    """Bring the Deployment to what the spec asks for; a newer operator that builds it differently changes nothing."""
    observed = target.deployment
    if not is_applied(observed, wanted.basis) or mounted_secret(observed) != wanted.secret:
        return (wanted.apply(target.number),)
    update = wanted.build(target.number)["spec"]["strategy"]["rollingUpdate"]
    current = observed["spec"].get("strategy", {}).get("rollingUpdate")
    if observed["spec"].get("replicas") == wanted.spec.replicas and current == update:
        return ()
    patch = {"spec": {"replicas": wanted.spec.replicas, "strategy": {"rollingUpdate": update}}}
    return (_patch(target, patch),)


def _scale(idle: PodSet, replicas: int) -> tuple[Action, ...]:
    if idle.deployment["spec"].get("replicas") == replicas:
        return ()
    return (_patch(idle, {"spec": {"replicas": replicas}}),)


def _patch(pods: PodSet, patch: KubernetesObject) -> Patch:
    metadata = pods.deployment["metadata"]
    return Patch("apps/v1", "Deployment", metadata["namespace"], metadata["name"], patch)


def _tell_switch(serving: PodSet, chosen: PodSet, target: PodSet) -> Event:
    if chosen is target:
        message = f"the pods of {chosen.name} answer clients in place of those of {serving.name}"
        return Event(Reason.SWITCHED, message)
    message = f"no pod of {serving.name} is ready: the pods of {chosen.name} answer clients again"
    return Event(Reason.SWITCHED_BACK, message, "Warning")


def _seconds_left(idle: PodSet, switch: Switch | None, wanted: WantedPods, now: datetime) -> float:
    """Seconds for which a set that is not wanted stays; never more than the delay, wherever the clock stands."""
    if switch is None or switch.former != idle.number:
        return 0.0
    delay = duration_seconds(wanted.spec.engine.scale_down_delay)
    return min(delay - (now - switch.time).total_seconds(), delay)
