"""Plan of the next actions for an AdapterDeployment.

Order of the actions: records and what is published of them (``publication``); history of the name, versions and their
annotations; the pods; deletion of old versions. Status comes last and contains nothing that can't be rebuilt from
these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.common import Model
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.fit.engine_fit import EngineFit
from tunesmith.decide.plan import (
    Action,
    Apply,
    Create,
    Delete,
    Event,
    Plan,
    Replace,
    owned_by,
    soonest,
)
from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun, read_evaluations
from tunesmith.decide.serving.admission.targets import Sources, TargetVersion, VersionRecord, resolve_target
from tunesmith.decide.serving.clients.access import fold_usage, sharing_pods
from tunesmith.decide.serving.placement.peers import next_peers
from tunesmith.decide.serving.pods.claims import ClaimLimits, judge_claims, mounted_claims, stops_first
from tunesmith.decide.serving.pods.engine_memory import REFUSALS, engine_needs, find_base_model, judge_memory
from tunesmith.decide.serving.pods.fleet import Agent, Fleet
from tunesmith.decide.serving.pods.pod_sets import PodSets, read_pod_sets
from tunesmith.decide.serving.pods.switching import (
    Demand,
    KeptVersion,
    SetPlan,
    WantedPods,
    keep_sets,
    plan_sets,
    replaces_in_place,
)
from tunesmith.decide.serving.records.elapsed import next_pass_seconds, with_elapsed
from tunesmith.decide.serving.records.history import update_history
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.decide.serving.records.stored import StoredServing, read_stored
from tunesmith.decide.serving.records.versions import (
    merge_records,
    plan_annotations,
    plan_deletions,
    plan_revisions,
)
from tunesmith.decide.serving.rollout.actions import ActionContext, apply_actions
from tunesmith.decide.serving.rollout.base_model import (
    ServedModel,
    find_next_versions,
    find_other_model,
    find_served_model,
    follow_model,
    rest,
)
from tunesmith.decide.serving.rollout.requested_actions import RequestedActions, fingerprint, read_actions
from tunesmith.decide.serving.rollout.transition import QUORUM_SECONDS, AliasContext, is_paused
from tunesmith.decide.serving.rollout.transitions import advance
from tunesmith.decide.serving.rollout.undo import aimed_target, without_settled_undo
from tunesmith.decide.serving.status.deployment import Explanation, ServingState, plan_status
from tunesmith.decide.serving.status.pod_sets import explain_wait, service_name_taken
from tunesmith.manifests.applied import is_applied, with_applied
from tunesmith.manifests.engine_container import EngineNeeds
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import STAGE_LABEL, Component
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.serving_config_maps import (
    HISTORY_KEY,
    ServingInputs,
    build_history,
    build_serving_inputs,
    history_name,
    read_serving_inputs,
)
from tunesmith.manifests.serving_deployment import (
    PodLimits,
    build_serving_deployment,
    build_serving_disruption_budget,
    serving_image,
)
from tunesmith.manifests.serving_network_policy import build_serving_network_policy
from tunesmith.manifests.serving_service import build_serving_service
from tunesmith_contract.agent import Version

from .publication import SharedState, generations_of, needed_by_pods, next_state, plan_publication

#: Interval while something is in progress whose end causes no watch event.
BUSY_SECONDS = 2.0
#: The same while no agent is connected: its first report leads to a pass, and so do its pod and the Deployment.
UNCONNECTED_SECONDS = 15.0
#: Interval while FineTuneJobs or EvalRuns decide what is served: each end of one leads to a pass, if a watch tells it.
REFERRING_SECONDS = 60.0
#: Interval while no pod is started because no GPU can be used, or the model fits on none: nodes with others may join.
REFUSED_SECONDS = 60.0
#: Interval between moves of home pods: an agent loads the versions that are new at home on it in less.
MOVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ObservedServing:
    """Observed objects of an AdapterDeployment.

    Attributes:
        config_maps: the ConfigMaps of the resource: inputs, desired state, and the records of its aliases.
        history: the ConfigMap with the history of the resource's name, whoever it belongs to.
        deployments: the Deployments of the pods, one for each set.
        service: the Service with the name of the resource, whoever owns it.
        disruption_budget: the PodDisruptionBudget of the pods.
        network_policy: the NetworkPolicy of the pods.
        revisions: the ControllerRevisions of the versions.
        pods: the serving pods.
        agents: the latest reports of their agents.
        jobs: the FineTuneJobs that adapters refer to, by name; None for one that does not exist.
        eval_runs: the EvalRuns of the namespace that have a verdict, with their records.
        verdicts: the ConfigMaps of the namespace that keep verdicts on artifacts.
        records: the records of data preparation of FineTuneJobs on the same base model, which hold its sizes.
        claims: access modes of the claims that the pods mount, of those that exist; None if they were not read.
        nodes: the nodes of the cluster; None if they were not observed.
        leading_seconds: time for which agents could connect to this operator, by its monotonic clock.
    """

    config_maps: tuple[Body, ...] = ()
    history: Body | None = None
    deployments: tuple[Body, ...] = ()
    service: Body | None = None
    disruption_budget: Body | None = None
    network_policy: Body | None = None
    revisions: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    agents: tuple[Agent, ...] = ()
    jobs: Mapping[str, Body | None] | None = None
    eval_runs: tuple[ObservedEvalRun, ...] = ()
    verdicts: tuple[Body, ...] = ()
    records: tuple[Body, ...] = ()
    nodes: tuple[Body, ...] | None = None
    claims: Mapping[str, tuple[str, ...]] | None = None
    leading_seconds: float = float("inf")


@dataclass(frozen=True, slots=True)
class _Advanced:
    """Result of the transitions of this pass.

    Attributes:
        aliases: record and context of each alias, ordered by name. The contexts know the changes of this pass: a
            version that was just rolled back is a rejected one.
        targets: the version that each alias was to serve when the pass began, by name.
        named: the version that the source of each alias names after the pass, by name.
        versions: all versions, with the changes of this pass.
        events: the events about actions and transitions.
        faults: sentences about actions whose IDs were used before.
    """

    aliases: tuple[tuple[AliasRecord, AliasContext], ...]
    targets: Mapping[str, TargetVersion]
    named: Mapping[str, TargetVersion]
    versions: tuple[VersionRecord, ...]
    events: tuple[Event, ...]
    faults: tuple[str, ...]

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
    stored = read_stored(deployment, observed.config_maps, observed.history, observed.revisions)
    is_foreign = _is_foreign(observed.service, deployment)
    own_service = None if is_foreign else observed.service
    sets = read_pod_sets(observed.deployments, own_service, observed.pods, observed.agents)
    fleet = sets.fleet
    requested = read_actions(deployment.metadata, [adapter.name for adapter in deployment.spec.adapters])
    served = find_served_model(deployment.spec, sets, stored.records.values())
    advanced = _advance_all(deployment, observed, stored, requested, fleet, served, now)
    upcoming = find_next_versions(advanced.records, advanced.named, served)
    other = find_other_model(served, upcoming, stored.published, sets, observed.pods)
    peers = next_peers(deployment, advanced.records, fleet, stored.published.peers)
    shared = SharedState(peers.peers, other, sharing_pods(deployment, fleet))
    leading = observed.leading_seconds
    refused = deployment.refused_aliases
    desired = next_state(stored, advanced.records, sets.everyone, environment.term, shared, leading, refused)
    usage = fold_usage(deployment, observed.config_maps, sets.everyone, sets.everyone.uids, now)
    demand = Demand(
        needed_by_pods(desired, stored.published),
        _served_versions(advanced.records),
        _kept_versions(advanced.aliases),
    )
    if served.is_changing:
        blocked = service_name_taken(deployment) if is_foreign else upcoming.blocked
        demand = replace(demand, versions=upcoming.versions, kept=(), blocked=blocked)
    pods = _plan_pods(deployment, observed, environment, sets, demand, served, now)
    state = ServingState(
        sets=sets,
        set_plan=pods.sets,
        wait=explain_wait(deployment, sets, pods.sets, demand, pods.claims, now),
        service_is_foreign=is_foreign,
        fleet=fleet,
        generation=desired.whole.generation,
        aliases=advanced.aliases,
        generations=generations_of(advanced.records, stored, desired),
        versions=advanced.versions,
        obstacle=pods.obstacle,
        fit=pods.fit,
        claims=pods.claims if mounted_claims(deployment.spec) else None,
        foreign_history=history_name(deployment.metadata.name) if stored.history_is_foreign else "",
        action_faults=(*requested.faults, *advanced.faults),
        has_network_policy=environment.serving_network is not None,
        usage=usage.record,
    )
    status, status_events, wait = plan_status(deployment, state, now)
    return Plan(
        actions=(
            *plan_publication(
                deployment, stored, advanced.records, desired, sets.everyone, environment.ca_bundle
            ),
            *usage.actions,
            *_history_action(deployment, stored, advanced.records, requested),
            *_version_actions(deployment, stored, advanced, now),
            *_pod_actions(deployment, observed, environment, pods),
            *_old_versions_action(deployment, observed, advanced),
        ),
        status=status,
        events=(*stored.events, *usage.events, *advanced.events, *pods.sets.events, *status_events),
        requeue_after=soonest(
            _requeue_after(state, wait), None if peers.is_settled else MOVE_SECONDS, desired.waiting.seconds
        ),
    )


def choose_inputs(
    deployment: AdapterDeployment, observed: ObservedServing, environment: Environment
) -> ServingInputs | None:
    """Image of the pods, or None if the operator was installed without one for this device.

    It stays the one chosen last, unless ``spec.engine.image`` has changed since, pods get GPUs that had none, or
    clients are to be asked for keys and its agent can't.
    """
    chosen = [
        read_serving_inputs(config_map)
        for config_map in observed.config_maps
        if config_map["metadata"]["labels"].get(STAGE_LABEL) == Component.INPUTS
    ]
    requested = deployment.spec.engine.image or ""
    on_gpus = deployment.spec.engine.gpus > 0
    needs_keys = deployment.spec.access is not None

    def is_meant(inputs: ServingInputs) -> bool:
        suits = inputs.on_gpus in (None, on_gpus) and (inputs.asks_for_keys or not needs_keys)
        return inputs.requested == requested and (bool(requested) or suits)

    last = max(chosen, key=lambda inputs: inputs.number, default=None)
    if last is not None and is_meant(last):
        return last
    image = requested or (environment.serving_gpu_image if on_gpus else environment.serving_image)
    if not image:
        return None
    known = {serving_image(body) for body in observed.deployments}
    for earlier in sorted(chosen, key=lambda inputs: inputs.number, reverse=True):
        if is_meant(earlier) and earlier.image in known:
            # The spec was changed back while pods with that choice are there.
            return earlier
    return ServingInputs(last.number + 1 if last else 1, requested, image, on_gpus)


@dataclass(frozen=True, slots=True)
class _PodPlan:
    """Next actions on the pods, with what decides them.

    Attributes:
        inputs: image of the pods; None if there is none.
        fit: the memory verdict on the engine; None if the last one holds.
        claims: limits by the claims that the pods mount.
        obstacle: reason and message why no pod is started or replaced, if there is one.
        sets: the next actions on the sets of pods.
    """

    inputs: ServingInputs | None
    fit: EngineFit | None
    claims: ClaimLimits
    obstacle: Explanation | None
    sets: SetPlan


def _plan_pods(
    deployment: AdapterDeployment,
    observed: ObservedServing,
    environment: Environment,
    sets: PodSets,
    demand: Demand,
    served: ServedModel,
    now: datetime,
) -> _PodPlan:
    """Next actions on the sets of pods; none while something keeps pods from being started.

    Args:
        demand: what another set must have before it answers.
    """
    inputs = choose_inputs(deployment, observed, environment)
    model = find_base_model(observed.records)
    needs = environment.serving_needs(inputs.image if inputs else "")
    fit = judge_memory(deployment, model, observed.nodes, needs, environment)
    claims = judge_claims(deployment, observed.claims)
    obstacle = _find_obstacle(deployment, inputs, fit)
    if inputs is None or obstacle is not None:
        return _PodPlan(inputs, fit, claims, obstacle, keep_sets(sets))
    limits = PodLimits(claims.on_one_node, stops_first(deployment, claims))
    wanted = _wanted_pods(deployment, inputs, environment, engine_needs(deployment, model), limits)
    # Without a Service of its own there is nothing to switch.
    in_place = _is_foreign(observed.service, deployment) or replaces_in_place(
        deployment.spec, limits.stops_first
    )
    planned = plan_sets(sets, wanted, demand, in_place and not served.is_changing, now)
    return _PodPlan(inputs, fit, claims, None, planned)


def _pod_actions(
    deployment: AdapterDeployment, observed: ObservedServing, environment: Environment, pods: _PodPlan
) -> tuple[Action, ...]:
    """Deployments of the pods, and the objects that select these."""
    return (
        *_inputs_action(deployment, observed, pods.inputs),
        *_network_policy_action(deployment, observed.network_policy, environment),
        # It has to leave out the pods of a set that begins.
        *_service_action(deployment, observed.service, pods.sets),
        *pods.sets.actions,
        *_disruption_budget_action(deployment, observed.disruption_budget, pods.sets.number),
    )


def _find_obstacle(
    deployment: AdapterDeployment, inputs: ServingInputs | None, fit: EngineFit | None
) -> Explanation | None:
    """Reason and message why no pod is started or replaced, if there is one."""
    if deployment.refused_arguments:
        return Reason.INCOMPATIBLE, deployment.refused_arguments
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


def _advance_all(
    deployment: AdapterDeployment,
    observed: ObservedServing,
    stored: StoredServing,
    requested: RequestedActions,
    fleet: Fleet,
    served: ServedModel,
    now: datetime,
) -> _Advanced:
    versions = merge_records(stored.versions, stored.records.values())
    sources = Sources(
        deployment.spec,
        _read_jobs(observed),
        read_evaluations(observed.eval_runs, observed.verdicts),
        versions,
        deployment.metadata.name,
        {name: record.stable.digest for name, record in stored.records.items() if record.stable},
        {name: record.last_number for name, record in stored.records.items()},
        _read_ranks(observed),
    )
    records: list[AliasRecord] = []
    targets: dict[str, TargetVersion] = {}
    events: list[Event] = []
    faults: list[str] = []
    adapters = sorted(deployment.spec.adapters, key=lambda adapter: adapter.name)
    for adapter in adapters:
        record, moves = follow_model(stored.records[adapter.name], served, stored.published, now)
        events += moves
        waits = bool(fleet.pods) and not is_paused(record, adapter)
        record = with_elapsed(record, adapter, now, waits)
        context = AliasContext(adapter, rest(resolve_target(adapter, sources), record, served), fleet, now)
        own = tuple(version for version in versions if version.alias == adapter.name)
        known = stored.history.find(adapter.name).actions
        acted = apply_actions(record, ActionContext(context, deployment.spec, own), requested, known)
        if acted.events:
            changed = replace(sources, versions=merge_records(stored.versions, [acted.record]))
            target = rest(resolve_target(adapter, changed), acted.record, served)
            context = replace(context, target=target)
        record = without_settled_undo(acted.record, context.target)
        targets[adapter.name] = aimed_target(record, context.target)
        record, transitions = advance(record, replace(context, target=targets[adapter.name]))
        records.append(record)
        events += [*acted.events, *transitions]
        faults += acted.faults
    versions = merge_records(versions, records)
    sources = replace(sources, versions=versions)
    named = {adapter.name: resolve_target(adapter, sources) for adapter in adapters}
    contexts = (
        AliasContext(adapter, aimed_target(record, rest(named[record.name], record, served)), fleet, now)
        for adapter, record in zip(adapters, records, strict=True)
    )
    pairs = tuple(zip(records, contexts, strict=True))
    return _Advanced(pairs, targets, named, versions, tuple(events), tuple(faults))


def _read_jobs(observed: ObservedServing) -> dict[str, FineTuneJobStatus | None]:
    return {name: _read_job(body) if body else None for name, body in (observed.jobs or {}).items()}


def _read_job(body: Body) -> FineTuneJobStatus:
    """Status of the job; without an artifact if it was edited into something that can't be read."""
    try:
        return FineTuneJobStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return FineTuneJobStatus()


def _read_ranks(observed: ObservedServing) -> dict[str, int]:
    """Ranks that jobs without a search write down."""
    specs = {name: body.get("spec") or {} for name, body in (observed.jobs or {}).items() if body}
    ranks = {
        name: (spec.get("adapter") or {}).get("rank")
        for name, spec in specs.items()
        if not spec.get("search")
    }
    return {name: rank for name, rank in ranks.items() if isinstance(rank, int)}


def _history_action(
    deployment: AdapterDeployment,
    stored: StoredServing,
    records: tuple[AliasRecord, ...],
    requested: RequestedActions,
) -> tuple[Action, ...]:
    """Write the history of the name where it lacks something, or belongs to an earlier resource."""
    if stored.history_is_foreign:
        return ()
    annotated = frozenset(map(fingerprint, requested.actions))
    text = update_history(stored.history, records, annotated).to_json()
    manifest = build_history(deployment, text)
    found = stored.history_map
    is_written = (
        found is not None
        and (found.get("data") or {}).get(HISTORY_KEY) == text
        and found["metadata"]["labels"] == manifest["metadata"]["labels"]
    )
    return () if is_written else (Replace.of(found, manifest),)


def _version_actions(
    deployment: AdapterDeployment, stored: StoredServing, advanced: _Advanced, now: datetime
) -> tuple[Action, ...]:
    """Missing ControllerRevisions, and missing annotations of promotions and rejections."""
    revisions = [
        create
        for record in advanced.records
        for create in plan_revisions(deployment, record, stored.versions, advanced.targets[record.name], now)
    ]
    annotations = [
        patch
        for record in advanced.records
        for patch in plan_annotations(deployment, record, stored.versions)
    ]
    return (*revisions, *annotations)


def _old_versions_action(
    deployment: AdapterDeployment, observed: ObservedServing, advanced: _Advanced
) -> tuple[Action, ...]:
    """Deletion of old versions' ControllerRevisions beyond ``revisionHistoryLimit``."""
    limit = deployment.spec.revision_history_limit
    return tuple(
        delete
        for record, context in advanced.aliases
        for delete in plan_deletions(observed.revisions, record, advanced.versions, context.target, limit)
    )


def _inputs_action(
    deployment: AdapterDeployment, observed: ObservedServing, inputs: ServingInputs | None
) -> tuple[Action, ...]:
    if inputs is None:
        return ()
    manifest = build_serving_inputs(deployment, inputs)
    names = {config_map["metadata"]["name"] for config_map in observed.config_maps}
    return () if manifest["metadata"]["name"] in names else (Create(manifest),)


#: Fields of the engine that earlier releases wrote into every resource.
_FORMER_DEFAULTS = (("gpu_resource", GPU_RESOURCE),)
#: Fields of the engine that no pod is built from.
_OUTSIDE_PODS = frozenset({"gpu_memory", "update_strategy", "scale_down_delay"})


def _without_defaults(model: Model) -> KubernetesObject:
    """Members that a person wrote: a field that a later release adds changes nothing."""
    return model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _served_versions(records: tuple[AliasRecord, ...]) -> tuple[tuple[str, Version], ...]:
    """Versions that get requests, with their aliases."""
    stable = [(record.name, record.stable) for record in records if record.stable]
    candidates = [
        (record.name, record.candidate.version)
        for record in records
        if record.candidate and record.candidate.weight
    ]
    return (*stable, *candidates)


def _kept_versions(aliases: tuple[tuple[AliasRecord, AliasContext], ...]) -> tuple[KeptVersion, ...]:
    """Versions that stay loaded for a way back; a set is given the rollout's progress deadline to load them."""
    return tuple(
        KeptVersion(record.name, previous, duration_seconds(context.adapter.rollout.progress_deadline))
        for record, context in aliases
        if (previous := record.watch.previous)
    )


def _wanted_pods(
    deployment: AdapterDeployment,
    inputs: ServingInputs,
    environment: Environment,
    needs: EngineNeeds,
    limits: PodLimits,
) -> WantedPods:
    """Pods that the spec asks for; they don't change because a newer operator would build them differently."""
    spec = deployment.spec
    telemetry = _without_defaults(spec.telemetry)
    basis = {
        "baseModel": _without_defaults(spec.base_model),
        "engine": {
            name: value
            for name, value in _without_defaults(spec.engine).items()
            if name not in _OUTSIDE_PODS and (name, value) not in _FORMER_DEFAULTS
        },
        "artifactVolumes": [volume.claim for volume in spec.artifact_volumes],
        "inputs": inputs.number,
        "operatorUrl": environment.operator_url,
        **({"keysSecret": spec.access.keys_secret_ref.name} if spec.access else {}),
        # Releases without telemetry are met by pods without any.
        **({"telemetry": telemetry} if telemetry else {}),
    }
    secret = spec.artifact_secret_ref.name if spec.artifact_secret_ref else None

    def build(number: int) -> KubernetesObject:
        return build_serving_deployment(deployment, inputs, environment, needs, limits, number)

    return WantedPods(spec, basis, secret, deployment.metadata.generation, build)


def _service_action(
    deployment: AdapterDeployment, observed: Body | None, plan: SetPlan
) -> tuple[Action, ...]:
    manifest = build_serving_service(deployment, plan.number, plan.switch)
    if _is_foreign(observed, deployment) or is_applied(observed, manifest):
        return ()
    return (Apply(with_applied(manifest, manifest)),)


def _is_foreign(observed: Body | None, deployment: AdapterDeployment) -> bool:
    return observed is not None and not owned_by(observed, deployment.metadata.uid)


def _disruption_budget_action(
    deployment: AdapterDeployment, observed: Body | None, number: int
) -> tuple[Action, ...]:
    manifest = build_serving_disruption_budget(deployment, number)
    return _optional_action(manifest if deployment.spec.replicas > 1 else None, observed)


def _network_policy_action(
    deployment: AdapterDeployment, observed: Body | None, environment: Environment
) -> tuple[Action, ...]:
    network = environment.serving_network
    return _optional_action(build_serving_network_policy(deployment, network) if network else None, observed)


def _optional_action(manifest: KubernetesObject | None, observed: Body | None) -> tuple[Action, ...]:
    """Apply what is wanted, or delete what is there and not wanted."""
    if manifest is not None:
        return () if is_applied(observed, manifest) else (Apply(with_applied(manifest, manifest)),)
    if observed is None:
        return ()
    metadata = observed["metadata"]
    return (
        Delete(
            observed["apiVersion"],
            observed["kind"],
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
        ),
    )


def _requeue_after(state: ServingState, wait: float | None) -> float | None:
    """Seconds until the next pass, for changes that cause no watch event."""
    waits = [] if wait is None else [wait]
    for record, context in state.aliases:
        due = next_pass_seconds(record, context.adapter, QUORUM_SECONDS)
        if due is not None and state.fleet.pods:
            waits.append(due)
        is_blocked = record.candidate is None and not context.target.admitted
        if is_blocked or context.adapter.source.fine_tune_job_ref is not None:
            waits.append(REFERRING_SECONDS)
    if state.obstacle and state.obstacle[0] in REFUSALS:
        waits.append(REFUSED_SECONDS)
    if state.is_busy:
        waits.append(BUSY_SECONDS if state.sets.everyone.has_agents else UNCONNECTED_SECONDS)
    if state.set_plan.removal_seconds is not None:
        waits.append(max(state.set_plan.removal_seconds, 1.0))
    return min(waits, default=None)
