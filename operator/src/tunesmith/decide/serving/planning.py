"""What to do next about an AdapterDeployment.

Order of the actions: what a killed predecessor left unsaid; inputs and versions; the ConfigMap with desired state and
record, in one write; the push to the agents; what became of the versions; the pods. Only then status, which holds
nothing that could not be made again from these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.common import Model
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.decide.plan import Action, Apply, Create, Delete, Event, Patch, Plan, Push, owned_by
from tunesmith.manifests.applied import is_applied, with_applied
from tunesmith.manifests.desired_config_map import (
    RECORD_KEY,
    build_desired_config_map,
    desired_config_map_name,
    read_desired,
)
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import STAGE_LABEL, Component
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.serving_deployment import (
    build_serving_deployment,
    build_serving_disruption_budget,
    rolling_update,
)
from tunesmith.manifests.serving_inputs import ServingInputs, build_serving_inputs, read_serving_inputs
from tunesmith.manifests.serving_service import build_serving_service
from tunesmith_contract.agent import DesiredState

from .fleet import Agent, Fleet, build_fleet
from .record import AliasRecord, ServingRecord
from .rollout import Facts, advance, next_look
from .sources import Sources, VersionRecord, find_wanted, read_evaluations
from .status import ServingState, plan_status
from .versions import overlay, plan_notes, plan_revisions, read_versions, rebuild_record

#: While something is under way that no watch tells of.
BUSY_SECONDS = 2.0
#: While waiting for objects that are not children.
WAITING_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ObservedServing:
    """What there is.

    Attributes:
        config_maps: the ConfigMaps of the resource: inputs, and desired state with record.
        deployment: the Deployment of the pods.
        service: the Service of the resource's name, whosever it is.
        disruption_budget: the PodDisruptionBudget of the pods.
        revisions: the ControllerRevisions of the versions.
        pods: the serving pods.
        agents: what their agents reported.
        jobs: the FineTuneJobs that adapters name, by name; None for one that is not there.
        eval_runs: the EvalRuns of the namespace.
    """

    config_maps: tuple[Body, ...] = ()
    deployment: Body | None = None
    service: Body | None = None
    disruption_budget: Body | None = None
    revisions: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    agents: tuple[Agent, ...] = ()
    jobs: Mapping[str, Body | None] | None = None
    eval_runs: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the records say.

    Attributes:
        config_map: the one with desired state and record; None before it is first written, or when it is lost.
        desired: what the pods were told last.
        records: by stable name.
        versions: what the ControllerRevisions say.
    """

    config_map: Body | None
    desired: DesiredState
    records: Mapping[str, AliasRecord]
    versions: tuple[VersionRecord, ...]


def plan_serving(
    deployment: AdapterDeployment, observed: ObservedServing, now: datetime, environment: Environment
) -> Plan:
    """Decide what to do next.

    Args:
        now: in UTC; whole seconds count.
    """
    now = now.replace(microsecond=0)
    kept = _read_records(deployment, observed)
    fleet = build_fleet(observed.pods, observed.agents)
    inputs = choose_inputs(deployment, observed, environment)
    moved, events = _advance_all(deployment, observed, kept, fleet, now)
    records = tuple(record for record, _ in moved)
    desired = _next_desired(kept, records, fleet)
    actions = (
        *_record_actions(deployment, kept, moved, desired, environment, fleet, now),
        *_pod_actions(deployment, observed, inputs, environment),
    )
    state = ServingState(
        observed=observed.deployment,
        service_is_foreign=_is_foreign(observed.service, deployment),
        fleet=fleet,
        generation=desired.generation,
        aliases=_restate(deployment, observed, kept, moved),
        versions=overlay(kept.versions, records),
    )
    status, status_events, wait = plan_status(deployment, state, now)
    return Plan(
        actions=(*_inputs_action(deployment, observed, inputs), *actions),
        status=status,
        events=(*events, *status_events),
        requeue_after=_requeue(state, now, wait),
    )


Moved = tuple[tuple[AliasRecord, Facts], ...]


def choose_inputs(
    deployment: AdapterDeployment, observed: ObservedServing, environment: Environment
) -> ServingInputs:
    """The images of the pods: those of the last choice, unless ``spec.engine`` asks for others since."""
    kept = [
        read_serving_inputs(config_map)
        for config_map in observed.config_maps
        if config_map["metadata"]["labels"].get(STAGE_LABEL) == Component.INPUTS
    ]
    requested = deployment.spec.engine.image or ""
    last = max(kept, key=lambda inputs: inputs.number, default=None)
    if last is not None and last.requested == requested:
        return last
    number = last.number + 1 if last else 1
    return ServingInputs(number=number, requested=requested, image=requested or environment.serving_image)


def _read_records(deployment: AdapterDeployment, observed: ObservedServing) -> _Kept:
    name = desired_config_map_name(deployment)
    config_map = next((found for found in observed.config_maps if found["metadata"]["name"] == name), None)
    versions = read_versions(observed.revisions)
    if config_map is None:
        records = {
            adapter.name: rebuild_record(adapter.name, versions) for adapter in deployment.spec.adapters
        }
        return _Kept(None, DesiredState(generation=0), records, versions)
    record = ServingRecord.model_validate_json(config_map["data"][RECORD_KEY])
    records = {alias.name: alias for alias in record.aliases}
    return _Kept(config_map, read_desired(config_map), records, versions)


def _advance_all(
    deployment: AdapterDeployment, observed: ObservedServing, kept: _Kept, fleet: Fleet, now: datetime
) -> tuple[Moved, tuple[Event, ...]]:
    sources = _sources(deployment, observed, overlay(kept.versions, kept.records.values()))
    moved: list[tuple[AliasRecord, Facts]] = []
    events: list[Event] = []
    for adapter in sorted(deployment.spec.adapters, key=lambda adapter: adapter.name):
        facts = Facts(adapter, find_wanted(adapter, sources), fleet, now)
        record = kept.records.get(adapter.name, AliasRecord(name=adapter.name))
        record, told = advance(record, facts)
        moved.append((record, facts))
        events += told
    return tuple(moved), tuple(events)


def _sources(
    deployment: AdapterDeployment, observed: ObservedServing, versions: tuple[VersionRecord, ...]
) -> Sources:
    jobs = {
        name: FineTuneJobStatus.model_validate(body.get("status") or {}) if body else None
        for name, body in (observed.jobs or {}).items()
    }
    return Sources(deployment.spec, jobs, read_evaluations(observed.eval_runs), versions)


def _restate(deployment: AdapterDeployment, observed: ObservedServing, kept: _Kept, moved: Moved) -> Moved:
    """The facts after the moves: a digest that was just taken back is a rejected one."""
    versions = overlay(overlay(kept.versions, kept.records.values()), (record for record, _ in moved))
    sources = _sources(deployment, observed, versions)
    return tuple(
        (record, Facts(facts.adapter, find_wanted(facts.adapter, sources), facts.fleet, facts.now))
        for record, facts in moved
    )


def _next_desired(kept: _Kept, records: tuple[AliasRecord, ...], fleet: Fleet) -> DesiredState:
    aliases = tuple(record.to_desired() for record in records)
    generation = kept.desired.generation
    # Pods that acted on a higher one remember a ConfigMap that is lost: they would take no lower one.
    if aliases != kept.desired.aliases or kept.config_map is None or fleet.generation > generation:
        generation = max(generation, fleet.generation) + 1
    return DesiredState(generation=generation, aliases=aliases)


def _record_actions(
    deployment: AdapterDeployment,
    kept: _Kept,
    moved: Moved,
    desired: DesiredState,
    environment: Environment,
    fleet: Fleet,
    now: datetime,
) -> tuple[Action, ...]:
    unsaid = tuple(
        note for record in kept.records.values() for note in plan_notes(deployment, record, kept.versions)
    )
    created = tuple(
        create
        for record, facts in moved
        for create in plan_revisions(deployment, record, kept.versions, facts.wanted, now)
    )
    notes = tuple(note for record, _ in moved for note in plan_notes(deployment, record, kept.versions))
    document = ServingRecord(aliases=tuple(record for record, _ in moved)).to_json()
    config_map = build_desired_config_map(deployment, desired, document, environment.ca_bundle)
    write: tuple[Action, ...] = (Apply(config_map),)
    if kept.config_map is not None and kept.config_map["data"] == config_map["data"]:
        write = ()
    push: tuple[Action, ...] = (Push(deployment.metadata.namespace, deployment.metadata.name, desired),)
    if desired.generation == kept.desired.generation and not fleet.is_behind(desired.generation):
        push = ()
    return (*unsaid, *created, *write, *push, *(note for note in notes if note not in unsaid))


def _inputs_action(
    deployment: AdapterDeployment, observed: ObservedServing, inputs: ServingInputs
) -> tuple[Action, ...]:
    manifest = build_serving_inputs(deployment, inputs)
    names = {config_map["metadata"]["name"] for config_map in observed.config_maps}
    return () if manifest["metadata"]["name"] in names else (Create(manifest),)


def _as_written(model: Model) -> KubernetesObject:
    """Without defaults: a field that a later release adds changes nothing."""
    return model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _pod_actions(
    deployment: AdapterDeployment, observed: ObservedServing, inputs: ServingInputs, environment: Environment
) -> tuple[Action, ...]:
    return (
        *_deployment_action(deployment, observed.deployment, inputs, environment),
        *_service_action(deployment, observed.service),
        *_disruption_budget_action(deployment, observed.disruption_budget),
    )


def _deployment_action(
    deployment: AdapterDeployment,
    observed: Body | None,
    inputs: ServingInputs,
    environment: Environment,
) -> tuple[Action, ...]:
    """Apply where what a person wrote has changed, not where a newer operator would build it differently."""
    spec = deployment.spec
    basis = {
        "baseModel": _as_written(spec.base_model),
        "engine": _as_written(spec.engine),
        "artifactVolumes": [volume.claim for volume in spec.artifact_volumes],
        "inputs": inputs.number,
        "operatorUrl": environment.operator_url,
    }
    if observed is None or not is_applied(observed, basis):
        manifest = build_serving_deployment(deployment, inputs.image, environment)
        return (Apply(with_applied(manifest, basis)),)
    update = rolling_update(spec.replicas, spec.engine.gpus)
    if observed["spec"].get("replicas") == spec.replicas:
        return ()
    patch = {"spec": {"replicas": spec.replicas, "strategy": {"rollingUpdate": update}}}
    metadata = observed["metadata"]
    return (Patch("apps/v1", "Deployment", metadata["namespace"], metadata["name"], patch),)


def _service_action(deployment: AdapterDeployment, observed: Body | None) -> tuple[Action, ...]:
    manifest = build_serving_service(deployment)
    if _is_foreign(observed, deployment) or is_applied(observed, manifest):
        return ()
    return (Apply(with_applied(manifest, manifest)),)


def _is_foreign(observed: Body | None, deployment: AdapterDeployment) -> bool:
    return observed is not None and not owned_by(observed, deployment.metadata.uid)


def _disruption_budget_action(deployment: AdapterDeployment, observed: Body | None) -> tuple[Action, ...]:
    manifest = build_serving_disruption_budget(deployment)
    if deployment.spec.replicas > 1:
        return () if is_applied(observed, manifest) else (Apply(with_applied(manifest, manifest)),)
    if observed is None:
        return ()
    metadata = observed["metadata"]
    kind = manifest["kind"]
    return (Delete(manifest["apiVersion"], kind, metadata["namespace"], metadata["name"], metadata["uid"]),)


def _requeue(state: ServingState, now: datetime, wait: float | None) -> float | None:
    """When to look again, for what no watch tells."""
    waits = [] if wait is None else [wait]
    for record, facts in state.aliases:
        due = next_look(record.trial, facts.adapter) if record.trial else None
        if due is not None:
            waits.append(max((due - now).total_seconds(), 1.0))
        waits += _source_wait(record, facts)
    if state.is_busy:
        waits.append(BUSY_SECONDS)
    return min(waits, default=None)


def _source_wait(record: AliasRecord, facts: Facts) -> list[float]:
    follows = facts.adapter.source.fine_tune_job_ref is not None
    is_waiting = record.trial is None and not facts.wanted.admitted
    return [WAITING_SECONDS] if follows or is_waiting else []
