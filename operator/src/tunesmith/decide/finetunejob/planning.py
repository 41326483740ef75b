"""Planning of a FineTuneJob: its next actions, status and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason
from tunesmith.decide.fit.admission import Admission, admit, is_judged, judge
from tunesmith.decide.fit.estimate import Expected, expect_training
from tunesmith.decide.fit.gpus import ReachableGPUs
from tunesmith.decide.fit.reachable_gpus import GPURequest, find_reachable_gpus
from tunesmith.decide.fit.requests import training_requests
from tunesmith.decide.objects import attempt_of
from tunesmith.decide.plan import Action, Create, Event, Plan, owned_by, soonest
from tunesmith.decide.run.attempts import SOON_SECONDS, advance, refuse
from tunesmith.decide.run.expiry import expire
from tunesmith.decide.run.finished_work import stop_live_jobs
from tunesmith.decide.run.stage import StageState, Step
from tunesmith.decide.run.summary import first_try
from tunesmith.decide.search.settings import runs_trial_jobs
from tunesmith.decide.search.shared_pod import collect_pod_trials
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import build_eval_run, eval_run_name
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord
from tunesmith.manifests.run_snapshots import (
    Inputs,
    build_eval_run_note,
    build_inputs_config_map,
    build_run_config_map,
    parse_eval_run_note,
    parse_inputs,
    parse_run,
)
from tunesmith.manifests.trial_job import search_of
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.stages import Stage

from .claims import find_unshared_claim
from .costs import budget_events
from .finished import adopt_training, keep_training, with_finished
from .inputs import apply_snapshot, build_inputs, find_invalid_uri
from .lost_inputs import has_begun, rebuild_inputs
from .observed import ObservedTraining
from .referenced_jobs import NotReady
from .results import collect_results, result_events
from .run_config import resolve_run, with_largest_rank
from .searching import run_search
from .stages import generate_stage, prepare_stage, train_stage, unknown_stage
from .status import build_interrupted_status, build_training_status, build_waiting_status
from .status_view import SearchView, TrainingView
from .trial import adopt_preparation

#: The end of an earlier job wakes this one; this is for a change that was missed.
EARLIER_POLL_SECONDS = 60.0

TERMINAL = frozenset({FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED})


@dataclass(frozen=True, slots=True)
class _StagesResult:
    """Result of advancing the stages: the step of the last stage that was reached, and what led to it."""

    step: Step
    stage: Stage
    run: TrainConfig | None = None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    admission: Admission | None = None
    expected: Expected | None = None
    requests: Mapping[str, str] = field(default_factory=dict)
    search: SearchView | None = None

    @property
    def ended_at(self) -> datetime | None:
        """End of the whole job; None while it goes on."""
        trained = self.stage is Stage.TRAIN and self.step.state is StageState.SUCCEEDED
        record = self.step.last_record(self.stage)
        return record.ended_at if record and (trained or self.step.state is StageState.FAILED) else None

    def followed_by(self, stage: Stage, step: Step) -> "_StagesResult":
        """The result with the step of a further stage."""
        actions, events = (*self.actions, *step.actions), (*self.events, *step.events)
        return replace(self, step=step, stage=stage, actions=actions, events=events)


def plan_training(
    job: FineTuneJob, observed: ObservedTraining, now: datetime, environment: Environment
) -> Plan:
    """Plan for a FineTuneJob: generate, prepare, train, create the EvalRun, remove old Jobs."""
    now, records = now.replace(microsecond=0), observed.children.records
    if job.metadata.deletion_timestamp is not None:
        return Plan()
    decided = any(record.final or (record.stage is Stage.TRAIN and record.report) for record in records)
    if job.status.phase in TERMINAL and not decided:
        # The records are gone, the outcome is in status: it stays. If a backup brought the status back after the
        # resource, a Job may have been made in between.
        return Plan(actions=stop_live_jobs(observed.children))
    created: tuple[Action, ...] = ()
    search = search_of(job)
    if observed.inputs is not None:
        inputs = parse_inputs(observed.inputs)
    elif has_begun(job, observed):
        rebuilt = rebuild_inputs(job, observed, now, environment)
        if isinstance(rebuilt, NotReady):
            return _plan_without_inputs(job, observed, rebuilt, now, environment)
        inputs, created = rebuilt, () if decided else (Create(build_inputs_config_map(job, rebuilt)),)
    elif search is not None:
        adoption = adopt_preparation(job, search.name, observed.related.trial_source)
        if isinstance(adoption, NotReady):
            status = build_waiting_status(job, adoption.message, adoption.missing, now)
            return Plan(status=status, requeue_after=EARLIER_POLL_SECONDS)
        inputs, created = adoption.inputs, adoption.actions
        observed = replace(observed, children=observed.children.with_records(adoption.records))
    else:
        outcome = build_inputs(job, observed.related.earlier, now, environment)
        if isinstance(outcome, NotReady):
            status = build_waiting_status(job, outcome.message, outcome.missing, now)
            return Plan(status=status, requeue_after=EARLIER_POLL_SECONDS)
        if isinstance(outcome, Failure):
            reason = FineTuneJobReason.EARLIER_JOB_FAILED
            step = refuse(job, Stage.PREPARE, observed.children, outcome, now, reason)
            refused = _StagesResult(step, Stage.PREPARE, None, step.actions, step.events)
            return _build_plan(job, observed, refused, None, now)
        started = first_try(job.status.conditions, job.status.start_time) or now
        inputs = with_finished(job, replace(outcome, started=started), observed)
        created = (Create(build_inputs_config_map(job, inputs), condition=ConditionType.JOB_CREATED),)
    job = apply_snapshot(job, inputs)
    result = _run_stages(job, observed, inputs, now, environment)
    result = replace(result, actions=(*created, *result.actions))
    return _build_plan(job, observed, result, inputs, now)


def _plan_without_inputs(
    job: FineTuneJob, observed: ObservedTraining, missing: NotReady, now: datetime, environment: Environment
) -> Plan:
    """Plan for a job that has begun and whose inputs can't be known: what runs or has ended still counts."""
    children = observed.children
    ended = [record for record in children.records if record.final or _is_trained(record)]
    live = children.unrecorded_job
    if ended:
        state = StageState.FAILED if ended[-1].final else StageState.SUCCEEDED
        step, stage = Step(state, children, attempt=ended[-1].attempt), ended[-1].stage
    elif live is not None:
        stage = Stage(attempt_of(live)[0])
        step = advance(unknown_stage(job, observed, stage, environment), children, now)
        if step.state is StageState.SUCCEEDED and stage is not Stage.TRAIN:
            # The next stage needs the inputs.
            step = replace(step, state=StageState.RUNNING, requeue_after=SOON_SECONDS)
    else:
        status = build_interrupted_status(job, missing.message, now)
        return Plan(status=status, requeue_after=EARLIER_POLL_SECONDS)
    run = parse_run(observed.run) if observed.run is not None else None
    result = _StagesResult(step, stage, run, step.actions, step.events)
    return _build_plan(job, observed, result, None, now)


def _is_trained(record: AttemptRecord) -> bool:
    return record.stage is Stage.TRAIN and record.outcome is AttemptOutcome.SUCCEEDED


def _build_plan(
    job: FineTuneJob, observed: ObservedTraining, result: _StagesResult, inputs: Inputs | None, now: datetime
) -> Plan:
    evaluation, eval_run, evaluation_events = _create_eval_run(job, observed, result)
    expiry = expire(job, job.status.phase in TERMINAL, observed.children.jobs, result.ended_at, now)
    progress = observed.progress
    is_current = progress and (progress.stage, progress.attempt) == (result.stage, result.step.attempt)
    view = TrainingView(
        inputs=inputs,
        run=result.run,
        requests=result.requests,
        step=result.step,
        stage=result.stage,
        eval_run=eval_run,
        progress=progress.status if progress and is_current else None,
        admission=result.admission,
        expected=result.expected,
        evaluation_gpu_seconds=_evaluation_gpu_seconds(job, observed),
        search=result.search,
    )
    results = collect_results(job, view)
    events = (*result.events, *evaluation_events, *result_events(job, results, view), *expiry.events)
    trained = result.stage is Stage.TRAIN and result.step.state is StageState.SUCCEEDED
    kept = keep_training(job, observed, inputs, result.step.children, result.run) if trained else ()
    return Plan(
        actions=(*result.actions, *evaluation, *kept, *expiry.actions),
        status=build_training_status(job, view, results, now),
        events=events,
        requeue_after=soonest(result.step.requeue_after, expiry.requeue_after),
    )


def _run_stages(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, now: datetime, environment: Environment
) -> _StagesResult:
    """Advance the stages in their order, up to the first that has not succeeded."""
    first = Stage.GENERATE if inputs.generate else Stage.PREPARE
    if not observed.children.records:
        failure = find_invalid_uri(inputs) or find_unshared_claim(job, observed.related.claims)
        if failure is not None:
            step = refuse(job, first, observed.children, failure, now, failure.reason)
            return _StagesResult(step, first, None, step.actions, step.events)
    result = _StagesResult(Step(StageState.SUCCEEDED, observed.children), first)
    if inputs.generate:
        stage = generate_stage(job, observed, inputs, environment)
        result = result.followed_by(Stage.GENERATE, advance(stage, result.step.children, now))
    if result.step.state is StageState.SUCCEEDED:
        stage = prepare_stage(job, observed, inputs, environment)
        result = result.followed_by(Stage.PREPARE, advance(stage, result.step.children, now))
    if result.step.state is StageState.SUCCEEDED:
        run = _run_trials if runs_trial_jobs(job.spec.search) else _run_training
        result = run(job, observed, inputs, result, now, environment)
    return result


def _run_trials(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    result: _StagesResult,
    now: datetime,
    environment: Environment,
) -> _StagesResult:
    """Advance the trials of a search; the configuration of the best one is that of the job."""
    report = result.step.report(Stage.PREPARE)
    assert report is not None
    run = parse_run(observed.run) if observed.run is not None else None
    searched = run_search(job, observed.search, result.step.children, inputs, report, run, now)
    view = SearchView(searched.settings, searched.trials, in_jobs=True)
    admission = None
    if run is not None and not is_judged(job.status):
        admission = judge(run, report, _find_gpus(job, observed, inputs, environment))
    result = replace(result, run=run, admission=admission, search=view)
    return result.followed_by(Stage.TRAIN, searched.step)


def _find_gpus(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> ReachableGPUs:
    """GPUs that the training pods may get."""
    compute, needs = job.spec.compute, environment.trainer_needs(inputs.image)
    gpus = environment.gpus(compute.gpus_per_node, compute.gpu_resource, compute.template)
    request = GPURequest(gpus.count, gpus.resource, compute.gpu_memory, compute.template, "compute")
    return find_reachable_gpus(request, observed.related.gpu_nodes, needs, environment.gpu_tolerations)


def _run_training(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    result: _StagesResult,
    now: datetime,
    environment: Environment,
) -> _StagesResult:
    """Resolve the training configuration, once, and advance the training."""
    children, report = result.step.children, result.step.report(Stage.PREPARE)
    assert report is not None
    adoption = adopt_training(job, observed, inputs, children, now)
    if adoption is not None:
        observed, actions, events = adoption
        children = observed.children
        result = replace(result, actions=(*result.actions, *actions), events=(*result.events, *events))
    has_record = bool(children.records_of(Stage.TRAIN))
    begun = has_record or children.job_of(Stage.TRAIN, 1) is not None
    failure = None if begun else find_unshared_claim(job, observed.related.claims)
    if failure is not None:
        return result.followed_by(
            Stage.TRAIN, refuse(job, Stage.TRAIN, children, failure, now, failure.reason)
        )
    gpus = _find_gpus(job, observed, inputs, environment)
    resolved, admission = _resolve_training(job, observed, inputs, report, gpus)
    result = replace(result, admission=admission)
    if isinstance(resolved, Failure):
        if not has_record:
            step = refuse(job, Stage.TRAIN, children, resolved, now, resolved.reason)
        else:
            step = advance(train_stage(job, observed, inputs, None, environment), children, now)
        return result.followed_by(Stage.TRAIN, step)
    expected = expect_training(gpus.product, resolved, report)
    assert report.model is not None
    requests = training_requests(report.model, resolved, cached=job.spec.compute.cache_volume is not None)
    result = replace(result, run=resolved, expected=expected, requests=requests)
    if observed.run is None and not any(record.final or _is_trained(record) for record in children.records):
        # The pods of further attempts need it, so one that was deleted is made again.
        result = replace(
            result,
            actions=(
                *result.actions,
                Create(build_run_config_map(job, resolved), condition=ConditionType.JOB_CREATED),
            ),
            events=(*result.events, *(() if begun else budget_events(job, expected))),
        )
    step = advance(train_stage(job, observed, inputs, resolved, environment, requests), children, now)
    return _with_pod_trials(job, observed, result.followed_by(Stage.TRAIN, step), now)


def _with_pod_trials(
    job: FineTuneJob, observed: ObservedTraining, result: _StagesResult, now: datetime
) -> _StagesResult:
    """The result with the trials of a search in the training pod."""
    if result.run is None or result.run.search is None:
        return result
    update, report = observed.progress, result.step.report(Stage.TRAIN)
    is_current = update and (update.stage, update.attempt) == (Stage.TRAIN, result.step.attempt)
    metrics = {item.name: item.value for item in update.status.metrics} if update and is_current else {}
    training = report.training if report else None
    found = collect_pod_trials(
        job, result.run.search, observed.search, metrics, training.search if training else None, now
    )
    view = SearchView(found.settings, found.trials, in_jobs=False, folder=found.folder)
    return replace(result, search=view, actions=(*result.actions, *found.actions))


def _resolve_training(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, report: RunReport, gpus: ReachableGPUs
) -> tuple[TrainConfig | Failure, Admission | None]:
    """The training configuration or the failure instead, and the verdicts on it while status lacks them."""
    if observed.run is not None:
        run = parse_run(observed.run)
        return run, None if is_judged(job.status) else judge(run, report, gpus)
    for record in observed.children.records_of(Stage.TRAIN):
        if record.final and record.failure is not None:
            return record.failure, None
    reports = [record.report for record in observed.children.records_of(Stage.GENERATE) if record.report]
    generation = reports[0].generation if reports else None
    search = search_of(job)
    prepared_by = search.uid if search else None
    resolved = resolve_run(job.spec, inputs, report, inputs.initial, gpus.memory, generation, prepared_by)
    if isinstance(resolved, Failure):
        return resolved, None
    admission = admit(job.spec, with_largest_rank(resolved), report, gpus)
    return admission.failure or admission.run.model_copy(update={"adapter": resolved.adapter}), admission


def _evaluation_gpu_seconds(job: FineTuneJob, observed: ObservedTraining) -> float | None:
    """GPU time that the status of the job's own EvalRun tells; the last one that was seen, if it is gone."""
    body, before = observed.related.eval_run, job.status.cost
    seen = before.evaluation_gpu_seconds if before else None
    if body is not None and owned_by(body, job.metadata.uid):
        seen = ((body.get("status") or {}).get("cost") or {}).get("gpuSeconds", seen)
    try:
        return None if seen is None else float(seen)
    except ValueError:
        return None


def _is_of_former_job(eval_run: Body, job: FineTuneJob) -> bool:
    """True for an EvalRun that a deleted job of this name had made."""
    owners = eval_run["metadata"].get("ownerReferences") or ()
    former = (owner for owner in owners if (owner["kind"], owner["name"]) == (job.kind, job.metadata.name))
    return any(owner["uid"] != job.metadata.uid for owner in former)


def _create_eval_run(
    job: FineTuneJob, observed: ObservedTraining, result: _StagesResult
) -> tuple[tuple[Action, ...], str | None, tuple[Event, ...]]:
    """Actions that create the EvalRun, once; its name; and the event."""
    if observed.evaluation is not None:
        return (), parse_eval_run_note(observed.evaluation), ()
    evaluation = job.spec.evaluation
    trained = result.stage is Stage.TRAIN and result.step.state is StageState.SUCCEEDED
    if evaluation is None or not trained:
        return (), None, ()
    name, existing = eval_run_name(job), observed.related.eval_run
    if existing is not None and _is_of_former_job(existing, job):
        # Garbage collection removes it soon, and its deletion wakes this job.
        return (), None, ()
    if existing is not None and not owned_by(existing, job.metadata.uid):
        message = f'EvalRun "{name}" exists already and is not this job\'s: the evaluation was not made.'
        name_taken = Event(FineTuneJobReason.EVAL_RUN_NAME_TAKEN, message, "Warning")
        return (Create(build_eval_run_note(job, None)),), None, (name_taken,)
    message, condition = f'EvalRun "{name}" judges the artifact.', ConditionType.EVALUATION_CREATED
    created = Event(FineTuneJobReason.EVALUATION_CREATED, message, condition=condition)
    manifests = (build_eval_run(job, evaluation), build_eval_run_note(job, name))
    actions = tuple(Create(manifest, condition=condition) for manifest in manifests)
    return actions, name, (created,)
