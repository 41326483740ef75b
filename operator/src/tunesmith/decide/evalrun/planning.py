"""Planning of an EvalRun: its next actions, status and events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tunesmith.api.evalrun import EvalRun, EvalRunSpec
from tunesmith.api.reasons import ConditionType, EvalRunPhase, EvalRunReason
from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.decide.finetunejob.referenced_jobs import NotReady
from tunesmith.decide.fit.evaluation_fit import judge_evaluation
from tunesmith.decide.fit.reachable_gpus import GPURequest, find_reachable_gpus
from tunesmith.decide.fit.requests import evaluation_requests
from tunesmith.decide.objects import image_of, is_running, terminated
from tunesmith.decide.plan import Action, Create, Event, Plan, soonest
from tunesmith.decide.run.attempts import advance, refuse
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.claims import CACHE_FIELD, TEMPLATE_FIELD, cache_uri, volume_fields
from tunesmith.decide.run.expiry import expire
from tunesmith.decide.run.finished_work import adopted_event, stop_live_jobs
from tunesmith.decide.run.limits import RunLimits
from tunesmith.decide.run.outbound import authority_fields, proxy_secret_fields
from tunesmith.decide.run.references import References
from tunesmith.decide.run.stage import BegunAttempts, StageDefinition, StageState, Step, starts_nothing
from tunesmith.decide.run.summary import first_try, is_job_refused
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.evaluation_engine import choose_engine_image
from tunesmith.manifests.names import QUEUE_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, parse_result
from tunesmith.manifests.run_snapshots import (
    FitVerdict,
    Inputs,
    build_inputs_config_map,
    inputs_name,
    parse_inputs,
)
from tunesmith.manifests.stage_jobs import build_evaluate_job
from tunesmith_contract.evaluation import Engine
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.progress import TrainerStatus
from tunesmith_contract.report import Failure, ModelReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import Scheme

from .claims import claim_of_one_node, find_unshared_claim, read_shared_claims
from .config import NO_MODEL, ResolvedEvaluation, resolve_evaluation
from .finished import keep_evaluation, with_finished, work_to_check
from .kept_verdicts import keep_verdict
from .secrets import resolve_secrets, secret_fields
from .sides import SideSources, named_sides
from .status import EvaluationView, build_evaluation_status, judge_run

TERMINAL = frozenset({EvalRunPhase.SUCCEEDED, EvalRunPhase.FAILED})

#: A change of what the run waits for wakes it; this is for a change that was missed.
SOURCE_POLL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ObservedEvaluation:
    """Observed state of an EvalRun.

    Attributes:
        inputs: the snapshot.
        children: records, Jobs and pods.
        sources: the resources that the compared models name.
        models: reports on base models, by the name of the FineTuneJob whose preparation measured them.
        gpu_nodes: nodes whose GPUs are compared with the model.
        missing_config_maps: ConfigMaps that the pods need and that do not exist.
        mount_failures: messages of nodes about volumes that they can't mount.
        creation_failures: messages about pods that a Job could not create, by the Job's name.
        claims: access modes of the claims that several pods mount; read before each attempt.
        progress: the latest update of a pod.
        other_runs: the other EvalRuns of the namespace that have a verdict, once this one has ended.
        verdicts: the ConfigMaps of the namespace that keep verdicts on artifacts.
        finished: the ConfigMap with finished work of runs of this name; read before the run begins and after its end.
    """

    inputs: Body | None = None
    children: Children = field(default=Children())
    sources: SideSources = field(default=SideSources())
    models: Mapping[str, ModelReport] = field(default_factory=dict)
    gpu_nodes: tuple[Body, ...] = ()
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()
    creation_failures: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    progress: LiveProgress | None = None
    other_runs: tuple[Body, ...] = ()
    verdicts: tuple[Body, ...] = ()
    finished: tuple[Body, ...] = ()


def assemble_evaluation(
    run: EvalRun,
    config_maps: Sequence[Body],
    jobs: Sequence[Body],
    pods: Sequence[Body],
    sources: SideSources | None = None,
    missing_config_maps: tuple[str, ...] = (),
    mount_failures: tuple[str, ...] = (),
    source_config_maps: Mapping[str, Sequence[Body]] | None = None,
    gpu_nodes: tuple[Body, ...] = (),
    progress: LiveProgress | None = None,
    other_runs: tuple[Body, ...] = (),
    claims: Mapping[str, tuple[str, ...]] | None = None,
    verdicts: tuple[Body, ...] = (),
    creation_failures: Mapping[str, str] | None = None,
    finished: tuple[Body, ...] = (),
) -> ObservedEvaluation:
    """Group what was read by its role.

    Args:
        config_maps, jobs, pods: the run's children.
        source_config_maps: ConfigMaps of the FineTuneJobs that made compared models, by the name of the job.
    """
    by_name = {body["metadata"]["name"]: body for body in config_maps}
    records = (parse_result(body) for body in config_maps)
    models = {name: _model_report(bodies) for name, bodies in (source_config_maps or {}).items()}
    return ObservedEvaluation(
        inputs=by_name.get(inputs_name(run)),
        children=Children(tuple(filter(None, records)), tuple(jobs), tuple(pods)),
        sources=sources or SideSources(),
        models={name: model for name, model in models.items() if model is not None},
        gpu_nodes=gpu_nodes,
        missing_config_maps=missing_config_maps,
        mount_failures=mount_failures,
        creation_failures=creation_failures or {},
        claims=claims or {},
        progress=progress,
        other_runs=other_runs,
        verdicts=verdicts,
        finished=finished,
    )


def _model_report(config_maps: Sequence[Body]) -> ModelReport | None:
    records = filter(None, map(parse_result, config_maps))
    reports = [record.report.model for record in records if record.report and record.report.model]
    return reports[-1] if reports else None


def plan_evaluation(
    run: EvalRun, observed: ObservedEvaluation, now: datetime, environment: Environment
) -> Plan:
    """Plan for an EvalRun: resolve the candidate, evaluate, judge, remove old Jobs."""
    now = now.replace(microsecond=0)
    if run.metadata.deletion_timestamp is not None:
        return Plan()
    decided = any(record.final or record.report for record in observed.children.records)
    if run.status.phase in TERMINAL and not decided:
        # The records are gone, the outcome is in status: it stays. If a backup brought the status back after the
        # resource, a Job may have been made in between.
        return Plan(actions=stop_live_jobs(observed.children))
    if observed.inputs is not None:
        return _evaluate(run, parse_inputs(observed.inputs), (), observed, now, environment)
    if decided:
        return _build_plan(run, None, (), _ended_step(observed.children), observed, now)
    if observed.children.records or observed.children.jobs:
        return _go_on_without_inputs(run, observed, now, environment)
    return _begin(run, observed, now, environment)


def _go_on_without_inputs(
    run: EvalRun, observed: ObservedEvaluation, now: datetime, environment: Environment
) -> Plan:
    """Plan for a run that has begun and whose inputs were deleted.

    Pods that have begun to answer are followed to their end: what they compare is told by their report alone. Before
    and after that the inputs are resolved anew, or waited for if a compared model is gone.
    """
    live = observed.children.unrecorded_job
    begun = live is not None and any(
        is_running(pod) or terminated(pod) is not None for pod in observed.children.pods_of_job(live)
    )
    resolved = NotReady("") if begun else resolve_evaluation(run, observed.sources)
    if isinstance(resolved, ResolvedEvaluation):
        inputs = _inputs(run, resolved, run.status.start_time or now, environment)
        inputs = replace(inputs, image=image_of(live) if live is not None else inputs.image)
        created = (Create(build_inputs_config_map(run, inputs)),)
        return _evaluate(run, inputs, created, observed, now, environment)
    if live is not None:
        step = advance(_unknown_stage(run, live, observed, environment), observed.children, now)
        return _build_plan(run, None, (), step, observed, now)
    message = f"The ConfigMap with the run's inputs was deleted, and can't be made again: {resolved.message}"
    view = EvaluationView(None, Step(StageState.BACKING_OFF, observed.children), message)
    return Plan(status=build_evaluation_status(run, view, now), requeue_after=SOURCE_POLL_SECONDS)


def begun_attempts(run: EvalRun) -> BegunAttempts:
    """Attempts that have begun, as status tells them."""
    if run.status.phase in TERMINAL:
        return BegunAttempts()
    progress, refused = run.status.progress, is_job_refused(run.status.conditions)
    return BegunAttempts(run.status.attempts - refused, progress.updated if progress else None)


def _unknown_stage(
    run: EvalRun, live: Body, observed: ObservedEvaluation, environment: Environment
) -> StageDefinition:
    """Stage of a run whose inputs are lost: its live attempt goes on, and another can't be started."""
    nodes = live["spec"].get("parallelism", 1)
    return StageDefinition(
        owner=run,
        name=Stage.EVALUATE,
        build=starts_nothing,
        backoff_limit=run.spec.backoff_limit,
        limits=RunLimits(
            deadline_seconds=run.spec.active_deadline_seconds, gpus=run.spec.compute.gpus * nodes
        ),
        nodes=nodes,
        references=References(run.metadata.namespace, {}, creation_failures=observed.creation_failures),
        started=EvalRunReason.EVALUATING,
        ended=None,
        queued=QUEUE_LABEL in run.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
        begun=begun_attempts(run),
    )


def _ended_step(children: Children) -> Step:
    """Step of a run that has ended and lost its inputs: its records still tell the outcome."""
    last = children.records_of(Stage.EVALUATE)[-1]
    succeeded = last.outcome is AttemptOutcome.SUCCEEDED
    state = StageState.SUCCEEDED if succeeded else StageState.FAILED
    return Step(state, children, attempt=last.attempt)


def _begin(run: EvalRun, observed: ObservedEvaluation, now: datetime, environment: Environment) -> Plan:
    """Resolve the compared models, and take the inputs once all of them exist."""
    resolved = resolve_evaluation(run, observed.sources)
    if isinstance(resolved, NotReady):
        view = EvaluationView(None, Step(StageState.BACKING_OFF, observed.children), resolved.message)
        status = build_evaluation_status(run, view, now)
        return Plan(status=status, requeue_after=SOURCE_POLL_SECONDS)
    if isinstance(resolved, Failure):
        reason = EvalRunReason(resolved.reason)
        step = refuse(run, Stage.EVALUATE, observed.children, resolved, now, reason)
        return _build_plan(run, None, (), step, observed, now)
    if (failure := _engine_failure(resolved.config, environment)) is not None:
        step = refuse(run, Stage.EVALUATE, observed.children, failure, now, EvalRunReason.INVALID_SPEC)
        return _build_plan(run, None, (), step, observed, now)
    fit = _judge_fit(run, resolved, observed, environment)
    if fit is not None and fit.fits is False:
        failure = Failure(category=FailureCategory.USER_ERROR, reason=fit.reason, message=fit.message)
        step = refuse(run, Stage.EVALUATE, observed.children, failure, now, fit.reason)
        return _build_plan(run, None, (), step, observed, now)
    started = first_try(run.status.conditions, run.status.start_time) or now
    inputs = replace(_inputs(run, resolved, started, environment), fit=fit)
    inputs = with_finished(run, inputs, observed.finished)
    created = (Create(build_inputs_config_map(run, inputs), condition=ConditionType.JOB_CREATED),)
    return _evaluate(run, inputs, created, observed, now, environment)


def _engine_failure(config: EvaluateConfig, environment: Environment) -> Failure | None:
    """Failure for an engine that the installation has no image of."""
    if config.engine is not Engine.VLLM or choose_engine_image(config.gpus, environment):
        return None
    return Failure(
        category=FailureCategory.USER_ERROR,
        reason=EvalRunReason.INVALID_SPEC,
        message="engine: VLLM needs a serving image for GPUs, and the operator was installed without one: set the "
        "chart value servingGpuImage, or write engine: Transformers.",
    )


def _judge_fit(
    run: EvalRun, resolved: ResolvedEvaluation, observed: ObservedEvaluation, environment: Environment
) -> FitVerdict | None:
    """Verdict on the GPUs and their memory, before one is requested."""
    compute, needs = run.spec.compute, environment.trainer_needs(environment.trainer_image)
    if resolved.config.engine is Engine.VLLM:
        needs = environment.serving_needs(choose_engine_image(compute.gpus, environment))
    loaded = [item for item in resolved.sides if item.side.is_loaded]
    if not loaded:
        return FitVerdict(True, EvalRunReason.FITS, NO_MODEL) if compute.gpus else None
    resource = environment.gpus(compute.gpus, compute.gpu_resource, compute.template).resource
    request = GPURequest(compute.gpus, resource, compute.gpu_memory, compute.template, "compute")
    gpus = find_reachable_gpus(request, observed.gpu_nodes, needs, environment.gpu_tolerations)
    answer_tokens = max(suite.max_new_tokens for suite in run.spec.suites)
    measured = {
        item.base_model: observed.models[item.job.metadata.name]
        for item in loaded
        if item.job is not None and item.job.metadata.name in observed.models
    }
    used = {item.side.model or item.base_model or resolved.config.base_model for item in loaded}
    largest = max(measured.values(), key=lambda model: model.parameters, default=None)
    unknown = tuple(sorted(uri for uri in used if uri and uri not in measured))
    return judge_evaluation(largest, compute.gpus, answer_tokens, gpus, unknown)


def _inputs(run: EvalRun, resolved: ResolvedEvaluation, now: datetime, environment: Environment) -> Inputs:
    config, sides = resolved.config, resolved.sides
    secrets = resolve_secrets(run.spec, sides)
    known = [item.job.status.resolved for item in sides if item.job and item.side.is_loaded]
    sizes = [values.parameters for values in known if values and values.parameters]
    from_hub = (config.base_model or "").startswith(f"{Scheme.HF}://")
    uses_engine = config.engine is Engine.VLLM and any(side.is_loaded for side in config.sides)
    return Inputs(
        spec=run.spec.to_snapshot(),
        image=environment.trainer_image,
        started=now,
        config=config,
        ca_bundle=environment.ca_bundle,
        token_secret=secrets.get(SecretRole.BASE_MODEL, "") if from_hub else "",
        secrets=secrets,
        parameters=max(sizes, default=None),
        engine_image=choose_engine_image(config.gpus, environment) if uses_engine else "",
    )


def _evaluate(
    run: EvalRun,
    inputs: Inputs,
    created: tuple[Action, ...],
    observed: ObservedEvaluation,
    now: datetime,
    environment: Environment,
) -> Plan:
    run = run.model_copy(update={"spec": EvalRunSpec.model_validate_json(inputs.spec)})
    assert isinstance(inputs.config, EvaluateConfig)
    claims = read_shared_claims(run.spec, inputs.config, observed.claims)
    failure = find_unshared_claim(claims, inputs.config, references_of(run, inputs, observed, environment))
    if failure is not None and not observed.children.records:
        step = refuse(run, Stage.EVALUATE, observed.children, failure, now, failure.reason)
    else:
        stage = _stage(run, inputs, observed, environment, claim_of_one_node(claims))
        step = advance(stage, observed.children, now)
    return _build_plan(run, inputs, created, step, observed, now)


def _build_plan(
    run: EvalRun,
    inputs: Inputs | None,
    created: tuple[Action, ...],
    step: Step,
    observed: ObservedEvaluation,
    now: datetime,
) -> Plan:
    over = step.state in {StageState.SUCCEEDED, StageState.FAILED}
    record = step.last_record(Stage.EVALUATE)
    ended_at = record.ended_at if over and record else None
    expiry = expire(run, run.status.phase in TERMINAL, observed.children.jobs, ended_at, now)
    has_new_record = len(step.children.records) > len(observed.children.records)
    events = (*step.events, *(_verdict_events(run, inputs, step) if has_new_record else ()), *expiry.events)
    verdict = keep_verdict(run, record, observed.verdicts)
    kept = keep_evaluation(run, inputs, record, observed.finished)
    return Plan(
        actions=(*created, *verdict, *step.actions, *kept, *expiry.actions),
        status=build_evaluation_status(
            run,
            EvaluationView(
                inputs,
                step,
                progress=_current(observed, step),
                other_runs=observed.other_runs,
                verdicts=observed.verdicts,
            ),
            now,
        ),
        events=events,
        requeue_after=soonest(step.requeue_after, expiry.requeue_after),
    )


def _current(observed: ObservedEvaluation, step: Step) -> TrainerStatus | None:
    """The latest update of the pods, if it is of this attempt."""
    progress = observed.progress
    is_current = progress and (progress.stage, progress.attempt) == (Stage.EVALUATE, step.attempt)
    return progress.status if progress and is_current else None


def _verdict_events(run: EvalRun, inputs: Inputs | None, step: Step) -> tuple[Event, ...]:
    report = step.report(Stage.EVALUATE)
    verdict = judge_run(run, inputs, report.evaluation if report else None)
    if verdict is None:
        return ()
    record = step.last_record(Stage.EVALUATE)
    adopted = (adopted_event(record.adopted, run.kind),) if record and record.adopted else ()
    if verdict.verdict is Verdict.FAIL:
        return (*adopted, Event(verdict.reason, verdict.message, "Warning"))
    return (*adopted, Event(verdict.reason, verdict.message))


def _stage(
    run: EvalRun,
    inputs: Inputs,
    observed: ObservedEvaluation,
    environment: Environment,
    one_node_for: str,
) -> StageDefinition:
    config, cached = inputs.config, run.spec.compute.cache_volume is not None
    assert isinstance(config, EvaluateConfig)
    requests, finished = evaluation_requests(inputs.parameters, config, cached), work_to_check(inputs)
    return StageDefinition(
        owner=run,
        name=Stage.EVALUATE,
        build=lambda attempt, _: (
            build_evaluate_job(run, inputs, attempt, environment, requests, one_node_for, finished),
        ),
        backoff_limit=run.spec.backoff_limit,
        limits=RunLimits(deadline_seconds=run.spec.active_deadline_seconds, gpus=config.gpus * config.shards),
        nodes=config.shards,
        references=references_of(run, inputs, observed, environment),
        started=EvalRunReason.EVALUATING,
        ended=None,
        queued=QUEUE_LABEL in run.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
        begun=begun_attempts(run),
        finished=inputs.finished,
    )


def references_of(
    run: EvalRun, inputs: Inputs, observed: ObservedEvaluation, environment: Environment
) -> References:
    """Objects that the pods need, with the fields in which people wrote them."""
    config, spec = inputs.config, run.spec
    assert isinstance(config, EvaluateConfig)
    written: dict[str, str | None] = {
        "spec.baseModel.uri": config.base_model,
        "spec.output.uri": config.output if spec.output else None,
        "spec.fewShotFrom.uri": config.few_shot_from,
        **{f"spec.suites[{suite.name}].dataset.uri": suite.dataset for suite in config.suites},
        **_side_fields(spec, config),
        "spec.candidate": config.output,
        CACHE_FIELD: cache_uri(spec.compute.cache_volume),
        **volume_fields(spec.compute.template, TEMPLATE_FIELD),
        **authority_fields(spec.compute.template, environment.outbound),
    }
    named = inputs.secrets or {str(SecretRole.BASE_MODEL): inputs.token_secret}
    fields = secret_fields(spec)
    secrets: dict[str, str | None] = {fields.get(role, "spec"): name or None for role, name in named.items()}
    secrets |= proxy_secret_fields(spec.compute.template, environment.outbound)
    return References.of(
        run.metadata.namespace,
        written,
        secrets,
        observed.missing_config_maps,
        observed.mount_failures,
        observed.creation_failures,
    )


def _side_fields(spec: EvalRunSpec, config: EvaluateConfig) -> dict[str, str | None]:
    """URIs of the compared models, by the field that names each."""
    fields: dict[str, str | None] = {}
    for side, (_, path, written) in zip(config.sides, named_sides(spec), strict=True):
        stored = (side.adapter, side.checkpoint, side.answers)
        member = "answers.uri" if side.answers else "uri"
        field = f"{path}.{member}" if written.fine_tune_job_ref is None else path
        fields[field] = next((source.uri for source in stored if source is not None), None)
        fields[f"{path}.model.uri" if written.model else f"base model of {path}"] = side.model
    return fields
