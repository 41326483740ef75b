"""Planning of an EvalRun: its next actions, status and events."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tunesmith.api.evalrun import EvalRun, EvalRunSpec
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import EvalRunPhase, EvalRunReason, Verdict
from tunesmith.decide.finetunejob.claims import CACHE_FIELD, cache_uri
from tunesmith.decide.finetunejob.referenced_jobs import NotReady
from tunesmith.decide.fit.evaluation_fit import judge_evaluation
from tunesmith.decide.fit.reachable_gpus import GPURequest, find_reachable_gpus
from tunesmith.decide.fit.requests import evaluation_requests
from tunesmith.decide.plan import Action, Create, Event, Plan, soonest
from tunesmith.decide.run.attempts import advance, refuse
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.expiry import expire
from tunesmith.decide.run.limits import RunLimits
from tunesmith.decide.run.stage import StageDefinition, StageState, Step
from tunesmith.decide.run.waiting import References
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import QUEUE_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_snapshots import (
    FitVerdict,
    Inputs,
    build_inputs_config_map,
    inputs_name,
    parse_inputs,
)
from tunesmith.manifests.stage_jobs import build_evaluate_job
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.report import Failure, ModelReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import Scheme

from .sides import resolve_secrets, resolve_sides
from .status import EvaluationView, build_evaluation_status, verdict_of

TERMINAL = frozenset({EvalRunPhase.SUCCEEDED, EvalRunPhase.FAILED})

_SECRET_FIELDS: dict[str, str] = {
    SecretRole.BASE_MODEL: "spec.baseModel.secretRef.name",
    SecretRole.OUTPUT: "output.secretRef of its FineTuneJob",
    SecretRole.TRAIN: "dataset.train.secretRef of its FineTuneJob",
    SecretRole.WORKSPACE: "workspace.secretRef of its FineTuneJob",
}

#: The end of the job wakes the run; this is for a change that was missed.
CANDIDATE_POLL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ObservedEvaluation:
    """Observed state of an EvalRun.

    Attributes:
        inputs: the snapshot.
        children: records, Jobs and pods.
        candidate: the FineTuneJob that the candidate names.
        base_model: report on the base model by the preparation of that job.
        gpu_nodes: nodes whose GPUs are compared with the model.
        missing_config_maps: ConfigMaps that the pods need and that do not exist.
        mount_failures: messages of nodes about volumes that they can't mount.
    """

    inputs: Body | None = None
    children: Children = field(default=Children())
    candidate: FineTuneJob | None = None
    base_model: ModelReport | None = None
    gpu_nodes: tuple[Body, ...] = ()
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()


def assemble_evaluation(
    run: EvalRun,
    config_maps: Sequence[Body],
    jobs: Sequence[Body],
    pods: Sequence[Body],
    candidate: FineTuneJob | None = None,
    missing_config_maps: tuple[str, ...] = (),
    mount_failures: tuple[str, ...] = (),
    candidate_config_maps: Sequence[Body] = (),
    gpu_nodes: tuple[Body, ...] = (),
) -> ObservedEvaluation:
    """Group what was read by its role.

    Args:
        config_maps, jobs, pods: the run's children.
        candidate_config_maps: those of the FineTuneJob that the candidate names.
    """
    by_name = {body["metadata"]["name"]: body for body in config_maps}
    records = (parse_result(body) for body in config_maps)
    candidate_records = filter(None, map(parse_result, candidate_config_maps))
    reports = [record.report.model for record in candidate_records if record.report and record.report.model]
    return ObservedEvaluation(
        inputs=by_name.get(inputs_name(run)),
        children=Children(tuple(filter(None, records)), tuple(jobs), tuple(pods)),
        candidate=candidate,
        base_model=reports[-1] if reports else None,
        gpu_nodes=gpu_nodes,
        missing_config_maps=missing_config_maps,
        mount_failures=mount_failures,
    )


def plan_evaluation(
    run: EvalRun, observed: ObservedEvaluation, now: datetime, environment: Environment
) -> Plan:
    """Plan for an EvalRun: resolve the candidate, evaluate, judge, remove old Jobs."""
    now = now.replace(microsecond=0)
    if run.metadata.deletion_timestamp is not None:
        return Plan()
    decided = any(record.final or record.report for record in observed.children.records)
    if run.status.phase in TERMINAL and not decided:
        # The records are gone, the outcome is in status: it stays.
        return Plan()
    if observed.inputs is not None:
        return _evaluate(run, parse_inputs(observed.inputs), (), observed, now, environment)
    if decided:
        step = Step(StageState.FAILED, observed.children)
        return _build_plan(run, None, (), step, observed, now)
    return _begin(run, observed, now, environment)


def _begin(run: EvalRun, observed: ObservedEvaluation, now: datetime, environment: Environment) -> Plan:
    """Resolve the candidate, and take the inputs once it exists."""
    config = resolve_sides(run, observed.candidate)
    if isinstance(config, NotReady):
        view = EvaluationView(None, Step(StageState.BACKING_OFF, observed.children), config.message)
        status = build_evaluation_status(run, view, now)
        return Plan(status=status, requeue_after=CANDIDATE_POLL_SECONDS)
    if isinstance(config, Failure):
        step = refuse(run, Stage.EVALUATE, observed.children, config, now, EvalRunReason.CANDIDATE_FAILED)
        return _build_plan(run, None, (), step, observed, now)
    fit = _judge_fit(run, observed, environment)
    if fit is not None and fit.fits is False:
        failure = Failure(category=FailureCategory.USER_ERROR, reason=fit.reason, message=fit.message)
        step = refuse(run, Stage.EVALUATE, observed.children, failure, now, fit.reason)
        return _build_plan(run, None, (), step, observed, now)
    inputs = replace(_inputs(run, config, observed, now, environment), fit=fit)
    created = (Create(build_inputs_config_map(run, inputs)),)
    return _evaluate(run, inputs, created, observed, now, environment)


def _judge_fit(run: EvalRun, observed: ObservedEvaluation, environment: Environment) -> FitVerdict | None:
    """Verdict on the GPUs and their memory, before one is requested."""
    compute, needs = run.spec.compute, environment.trainer_needs(environment.trainer_image)
    request = GPURequest(compute.gpus, compute.gpu_resource, compute.gpu_memory, compute.template, "compute")
    gpus = find_reachable_gpus(request, observed.gpu_nodes, needs, environment.gpu_tolerations)
    answer_tokens = max(suite.max_new_tokens for suite in run.spec.suites)
    return judge_evaluation(observed.base_model, compute.gpus, answer_tokens, gpus)


def _inputs(
    run: EvalRun,
    config: EvaluateConfig,
    observed: ObservedEvaluation,
    now: datetime,
    environment: Environment,
) -> Inputs:
    secrets = resolve_secrets(run, observed.candidate)
    resolved = observed.candidate.status.resolved if observed.candidate else None
    from_hub = (config.base_model or "").startswith(f"{Scheme.HF}://")
    return Inputs(
        spec=run.spec.model_dump_json(by_alias=True, exclude_none=True),
        image=environment.trainer_image,
        started=now,
        config=config,
        ca_bundle=environment.ca_bundle,
        token_secret=secrets.get(SecretRole.BASE_MODEL, "") if from_hub else "",
        secrets=secrets,
        parameters=resolved.parameters if resolved else None,
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
    step = advance(_stage(run, inputs, observed, environment), observed.children, now)
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
    events = (*step.events, *(_verdict_events(run, step) if has_new_record else ()), *expiry.events)
    return Plan(
        actions=(*created, *step.actions, *expiry.actions),
        status=build_evaluation_status(run, EvaluationView(inputs, step), now),
        events=events,
        requeue_after=soonest(step.requeue_after, expiry.requeue_after),
    )


def _verdict_events(run: EvalRun, step: Step) -> tuple[Event, ...]:
    report = step.report(Stage.EVALUATE)
    if report is None or report.evaluation is None:
        return ()
    verdict = verdict_of(run.spec.gates, report.evaluation)
    if verdict.verdict is Verdict.FAIL:
        return (Event(verdict.reason, verdict.message, "Warning"),)
    return (Event(verdict.reason, verdict.message),)


def _stage(
    run: EvalRun, inputs: Inputs, observed: ObservedEvaluation, environment: Environment
) -> StageDefinition:
    config, cached = inputs.config, run.spec.compute.cache_volume is not None
    assert isinstance(config, EvaluateConfig)
    requests = evaluation_requests(inputs.parameters, config, cached)
    return StageDefinition(
        owner=run,
        name=Stage.EVALUATE,
        build=lambda attempt, _: (build_evaluate_job(run, inputs, attempt, environment, requests),),
        backoff_limit=run.spec.backoff_limit,
        limits=RunLimits(deadline_seconds=run.spec.active_deadline_seconds, gpus=run.spec.compute.gpus),
        references=_references(run, inputs, observed),
        started=EvalRunReason.EVALUATING,
        ended=None,
        queued=QUEUE_LABEL in run.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
    )


def _references(run: EvalRun, inputs: Inputs, observed: ObservedEvaluation) -> References:
    config = inputs.config
    assert isinstance(config, EvaluateConfig)
    baselines = (
        ("spec.baseline", config.sides[1]),
        *(("spec.references", side) for side in config.sides[2:]),
    )
    written: dict[str, str | None] = {
        "spec.baseModel.uri": config.base_model,
        "spec.fewShotFrom.uri": config.few_shot_from,
        **{f"spec.suites[{suite.name}].dataset.uri": suite.dataset for suite in config.suites},
        **{f"{path}.uri": side.adapter.uri for path, side in baselines if side.adapter},
        "spec.candidate": config.output,
        CACHE_FIELD: cache_uri(run.spec.compute.cache_volume),
    }
    named = inputs.secrets or {str(SecretRole.BASE_MODEL): inputs.token_secret}
    secrets: dict[str, str | None] = {_SECRET_FIELDS[role]: name or None for role, name in named.items()}
    return References.of(
        run.metadata.namespace, written, secrets, observed.missing_config_maps, observed.mount_failures
    )
