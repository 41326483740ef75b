"""Plan of the next actions for an AdapterDeployment.

Order of the actions: annotations that a killed predecessor did not write; inputs and versions; the ConfigMap with
desired state and record, in one write; the push to the agents; annotations about versions; the pods. Status comes last
and contains nothing that can't be rebuilt from these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.common import Model
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.fit.engine_fit import EngineFit
from tunesmith.decide.plan import Action, Apply, Create, Delete, Event, Patch, Plan, Push, owned_by
from tunesmith.manifests.applied import is_applied, with_applied
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import STAGE_LABEL, Component
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.serving_config_maps import (
    ServingInputs,
    build_desired_config_map,
    build_serving_inputs,
    desired_config_map_name,
    read_desired,
    read_serving_inputs,
)
from tunesmith.manifests.serving_deployment import (
    build_serving_deployment,
    build_serving_disruption_budget,
    rolling_update,
)
from tunesmith.manifests.serving_service import build_serving_service
from tunesmith_contract.agent import DesiredState
from tunesmith_contract.report import ModelReport

from .deployment_status import Explanation, ServingState, plan_status
from .engine_memory import REFUSALS, engine_needs, find_base_model, judge_memory
from .evaluations import ObservedEvalRun, read_evaluations
from .fleet import Agent, Fleet, build_fleet
from .record import AliasRecord, ServingRecord
from .rollout import AliasContext, advance, next_check_time
from .targets import Sources, TargetVersion, VersionRecord, resolve_target
from .versions import merge_records, plan_annotations, plan_revisions, read_records, read_versions

#: Interval while something is in progress whose end causes no watch event.
BUSY_SECONDS = 2.0
#: Interval while waiting for objects that the resource does not own.
WAITING_SECONDS = 15.0
#: Interval while no pod is started because no GPU can be used, or the model fits on none: nodes with others may join.
REFUSED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ObservedServing:
    """Observed objects of an AdapterDeployment.

    Attributes:
        config_maps: the ConfigMaps of the resource: inputs, and desired state with record.
        deployment: the Deployment of the pods.
        service: the Service with the name of the resource, whoever owns it.
        disruption_budget: the PodDisruptionBudget of the pods.
        revisions: the ControllerRevisions of the versions.
        pods: the serving pods.
        agents: the latest reports of their agents.
        jobs: the FineTuneJobs that adapters refer to, by name; None for one that does not exist.
        eval_runs: the EvalRuns of the namespace that have a verdict, with their records.
        verdicts: the ConfigMaps of the namespace that keep verdicts on artifacts.
        records: the records of data preparation of FineTuneJobs on the same base model, which hold its sizes.
        nodes: the nodes of the cluster; None if they were not observed.
    """

    config_maps: tuple[Body, ...] = ()
    deployment: Body | None = None
    service: Body | None = None
    disruption_budget: Body | None = None
    revisions: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    agents: tuple[Agent, ...] = ()
    jobs: Mapping[str, Body | None] | None = None
    eval_runs: tuple[ObservedEvalRun, ...] = ()
    verdicts: tuple[Body, ...] = ()
    records: tuple[Body, ...] = ()
    nodes: tuple[Body, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """Persistent state of an AdapterDeployment as of the previous pass.

    Attributes:
        config_map: the ConfigMap with desired state and record; None before it is first written, or if it is lost.
        desired: the desired state that was last sent to the pods.
        records: the rollout record of each alias, by name.
        versions: the versions stored in ControllerRevisions.
    """

    config_map: Body | None
    desired: DesiredState
    records: Mapping[str, AliasRecord]
    versions: tuple[VersionRecord, ...]


@dataclass(frozen=True, slots=True)
class _Advanced:
    """Result of the transitions of this pass.

    Attributes:
        aliases: record and context of each alias, ordered by name. The contexts know the changes of this pass: a
            version that was just rolled back is a rejected one.
        targets: the version that each alias was to serve when the pass began, by name.
        versions: all versions, with the changes of this pass.
        events: the events about the transitions.
    """

    aliases: tuple[tuple[AliasRecord, AliasContext], ...]
    targets: Mapping[str, TargetVersion]
    versions: tuple[VersionRecord, ...]
    events: tuple[Event, ...]

    @property
    def records(self) -> tuple[AliasRecord, ...]:
        """Rollout record of each alias, ordered by name."""
        return tuple(record for record, _ in self.aliases)


def plan_serving(
    deployment: AdapterDeployment, observed: ObservedServing, now: datetime, environment: Environment
) -> Plan:
    """Next actions, events and status.

    Args:
        now: the time in UTC; fractions of a second are ignored.
    """
    now = now.replace(microsecond=0)
    stored = _read_stored(deployment, observed)
    fleet = build_fleet(observed.pods, observed.agents)
    inputs = choose_inputs(deployment, observed, environment)
    model = find_base_model(observed.records)
    needs = environment.serving_needs(inputs.image if inputs else "")
    fit = judge_memory(deployment, model, observed.nodes, needs, environment.gpu_tolerations)
    obstacle = _find_obstacle(deployment, inputs, fit)
    advanced = _advance_all(deployment, observed, stored, fleet, now)
    desired = _next_desired(stored, advanced.records, fleet)
    state = ServingState(
        observed=observed.deployment,
        service_is_foreign=_is_foreign(observed.service, deployment),
        fleet=fleet,
        generation=desired.generation,
        aliases=advanced.aliases,
        versions=advanced.versions,
        obstacle=obstacle,
        fit=fit,
    )
    status, status_events, wait = plan_status(deployment, state, now)
    pods: tuple[Action, ...] = ()
    if inputs is not None and obstacle is None:
        pods = _deployment_action(deployment, observed.deployment, inputs, environment, model)
    return Plan(
        actions=(
            *_inputs_action(deployment, observed, inputs),
            *_record_actions(deployment, stored, advanced, desired, environment, fleet, now),
            *pods,
            *_service_action(deployment, observed.service),
            *_disruption_budget_action(deployment, observed.disruption_budget),
        ),
        status=status,
        events=(*advanced.events, *status_events),
        requeue_after=_requeue_after(state, now, wait),
    )


def choose_inputs(
    deployment: AdapterDeployment, observed: ObservedServing, environment: Environment
) -> ServingInputs | None:
    """Image of the pods, or None if the operator was installed without one for this device.

    It stays the one chosen last, unless ``spec.engine.image`` has changed since, or pods get GPUs that had none.
    """
    chosen = [
        read_serving_inputs(config_map)
        for config_map in observed.config_maps
        if config_map["metadata"]["labels"].get(STAGE_LABEL) == Component.INPUTS
    ]
    requested = deployment.spec.engine.image or ""
    on_gpus = deployment.spec.engine.gpus > 0
    last = max(chosen, key=lambda inputs: inputs.number, default=None)
    if last is not None and last.requested == requested and (requested or last.on_gpus in (None, on_gpus)):
        return last
    image = requested or (environment.serving_gpu_image if on_gpus else environment.serving_image)
    if not image:
        return None
    return ServingInputs(last.number + 1 if last else 1, requested, image, on_gpus)


def _find_obstacle(
    deployment: AdapterDeployment, inputs: ServingInputs | None, fit: EngineFit | None
) -> Explanation | None:
    """Reason and message why no pod is started or replaced, if there is one."""
    if fit is not None and fit.impossible:
        return fit.reason, fit.message
    if inputs is not None:
        return None
    gpus = deployment.spec.engine.gpus
    device, value = ("GPUs", "servingGpuImage") if gpus else ("CPUs", "servingImage")
    message = (
        f"engine.gpus is {gpus}, but the operator was installed without a serving image for {device}: build it and set "
        f"the chart's value {value}, or write engine.image"
    )
    return Reason.NO_SERVING_IMAGE, message


def _read_stored(deployment: AdapterDeployment, observed: ObservedServing) -> _Stored:
    name = desired_config_map_name(deployment)
    matches = (config_map for config_map in observed.config_maps if config_map["metadata"]["name"] == name)
    config_map = next(matches, None)
    versions = read_versions(observed.revisions)
    records = read_records(deployment, config_map, versions)
    if config_map is None:
        return _Stored(None, DesiredState(generation=0), records, versions)
    return _Stored(config_map, read_desired(config_map), records, versions)


def _advance_all(
    deployment: AdapterDeployment, observed: ObservedServing, stored: _Stored, fleet: Fleet, now: datetime
) -> _Advanced:
    jobs = {
        name: FineTuneJobStatus.model_validate(body.get("status") or {}) if body else None
        for name, body in (observed.jobs or {}).items()
    }
    versions = merge_records(stored.versions, stored.records.values())
    serving = {name: record.stable.digest for name, record in stored.records.items() if record.stable}
    sources = Sources(
        deployment.spec,
        jobs,
        read_evaluations(observed.eval_runs, observed.verdicts),
        versions,
        deployment.metadata.name,
        serving,
    )
    records: list[AliasRecord] = []
    targets: dict[str, TargetVersion] = {}
    events: list[Event] = []
    adapters = sorted(deployment.spec.adapters, key=lambda adapter: adapter.name)
    for adapter in adapters:
        targets[adapter.name] = resolve_target(adapter, sources)
        record = stored.records.get(adapter.name, AliasRecord(name=adapter.name))
        record, transitions = advance(record, AliasContext(adapter, targets[adapter.name], fleet, now))
        records.append(record)
        events += transitions
    versions = merge_records(versions, records)
    sources = replace(sources, versions=versions)
    contexts = (AliasContext(adapter, resolve_target(adapter, sources), fleet, now) for adapter in adapters)
    return _Advanced(tuple(zip(records, contexts, strict=True)), targets, versions, tuple(events))


def _next_desired(stored: _Stored, records: tuple[AliasRecord, ...], fleet: Fleet) -> DesiredState:
    aliases = tuple(record.to_desired() for record in records)
    generation = stored.desired.generation
    # Pods that applied a higher generation remember a ConfigMap that is lost: they would ignore a lower one.
    if aliases != stored.desired.aliases or stored.config_map is None or fleet.generation > generation:
        generation = max(generation, fleet.generation) + 1
    return DesiredState(generation=generation, aliases=aliases)


def _record_actions(
    deployment: AdapterDeployment,
    stored: _Stored,
    advanced: _Advanced,
    desired: DesiredState,
    environment: Environment,
    fleet: Fleet,
    now: datetime,
) -> tuple[Action, ...]:
    overdue = tuple(
        patch
        for record in stored.records.values()
        for patch in plan_annotations(deployment, record, stored.versions)
    )
    revisions = tuple(
        create
        for record in advanced.records
        for create in plan_revisions(deployment, record, stored.versions, advanced.targets[record.name], now)
    )
    annotations = tuple(
        patch
        for record in advanced.records
        for patch in plan_annotations(deployment, record, stored.versions)
        if patch not in overdue
    )
    document = ServingRecord(aliases=advanced.records).to_json()
    config_map = build_desired_config_map(deployment, desired, document, environment.ca_bundle)
    is_written = stored.config_map is not None and stored.config_map["data"] == config_map["data"]
    write: tuple[Action, ...] = () if is_written else (Apply(config_map),)
    is_sent = desired.generation == stored.desired.generation and not fleet.is_behind(desired.generation)
    push: tuple[Action, ...] = ()
    if not is_sent:
        push = (Push(deployment.metadata.namespace, deployment.metadata.name, desired),)
    return (*overdue, *revisions, *write, *push, *annotations)


def _inputs_action(
    deployment: AdapterDeployment, observed: ObservedServing, inputs: ServingInputs | None
) -> tuple[Action, ...]:
    if inputs is None:
        return ()
    manifest = build_serving_inputs(deployment, inputs)
    names = {config_map["metadata"]["name"] for config_map in observed.config_maps}
    return () if manifest["metadata"]["name"] in names else (Create(manifest),)


#: Fields of the engine that no pod is built from.
_OUTSIDE_PODS = frozenset({"gpu_memory", "update_strategy"})


def _without_defaults(model: Model) -> KubernetesObject:
    """Members that a person wrote: a field that a later release adds changes nothing."""
    return model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _deployment_action(
    deployment: AdapterDeployment,
    observed: Body | None,
    inputs: ServingInputs,
    environment: Environment,
    model: ModelReport | None,
) -> tuple[Action, ...]:
    """Apply the Deployment if the spec has changed, but not if a newer operator would build it differently."""
    spec = deployment.spec
    basis = {
        "baseModel": _without_defaults(spec.base_model),
        "engine": {
            name: value for name, value in _without_defaults(spec.engine).items() if name not in _OUTSIDE_PODS
        },
        "artifactVolumes": [volume.claim for volume in spec.artifact_volumes],
        "inputs": inputs.number,
        "operatorUrl": environment.operator_url,
    }
    if observed is None or not is_applied(observed, basis):
        needs = engine_needs(deployment, model)
        manifest = build_serving_deployment(deployment, inputs.image, environment, needs)
        return (Apply(with_applied(manifest, basis)),)
    update = rolling_update(spec.replicas, spec.engine)
    current = observed["spec"].get("strategy", {}).get("rollingUpdate")
    if observed["spec"].get("replicas") == spec.replicas and current == update:
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


def _requeue_after(state: ServingState, now: datetime, wait: float | None) -> float | None:
    """Seconds until the next pass, for changes that cause no watch event."""
    waits = [] if wait is None else [wait]
    for record, context in state.aliases:
        due = next_check_time(record.candidate, context.adapter) if record.candidate else None
        if due is not None:
            waits.append(max((due - now).total_seconds(), 1.0))
        is_blocked = record.candidate is None and not context.target.admitted
        if is_blocked or context.adapter.source.fine_tune_job_ref is not None:
            waits.append(WAITING_SECONDS)
    if state.obstacle and state.obstacle[0] in REFUSALS:
        waits.append(REFUSED_SECONDS)
    if state.is_busy:
        waits.append(BUSY_SECONDS)
    return min(waits, default=None)
