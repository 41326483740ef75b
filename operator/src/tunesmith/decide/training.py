"""What to do next about a FineTuneJob."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.reasons import FineTuneJobPhase, FineTuneJobReason
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import build_eval_run, eval_run_name
from tunesmith.manifests.evaluation_config_map import (
    build_evaluation_config_map,
    evaluation_name,
    parse_evaluation,
)
from tunesmith.manifests.inputs_config_map import Inputs, build_inputs_config_map, inputs_name, parse_inputs
from tunesmith.manifests.names import QUEUE_LABEL
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.prepare_job import build_prepare_job
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_config_map import build_run_config_map, parse_run, run_name
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith.manifests.train_job import build_train_job
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.progress import TrainerStatus
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import Owner, PrepareConfig, TrainConfig, ValidationSource
from tunesmith_contract.uris import InvalidUri, parse_uri

from .attempts import Children, Stage, StageState, Step, advance, refuse
from .expiry import expire
from .plan import Action, Create, Event, Plan, owned_by, soonest
from .plan import Manifest as Body
from .recipe import resolve_base, resolve_method, resolve_run
from .training_status import TrainingView, build_training_status
from .waiting import References

TERMINAL = frozenset({FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED})


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """What a pod said of its progress: kept nowhere but in the operator's memory."""

    stage: str
    attempt: int
    status: TrainerStatus


@dataclass(frozen=True, slots=True)
class ObservedTraining:
    """What there is of a FineTuneJob.

    Attributes:
        inputs, run: the snapshots.
        evaluation: the note that the EvalRun was made.
        children: records, Jobs and pods.
        eval_run: the EvalRun of the job's name, whoever made it.
        progress: the latest news from a pod.
        missing_config_maps: ConfigMaps that the pods wait for.
    """

    inputs: Body | None = None
    run: Body | None = None
    evaluation: Body | None = None
    children: Children = field(default=Children())
    eval_run: Body | None = None
    progress: LiveProgress | None = None
    missing_config_maps: tuple[str, ...] = ()


def assemble_training(
    job: FineTuneJob,
    config_maps: Sequence[Body],
    jobs: Sequence[Body],
    pods: Sequence[Body],
    eval_run: Body | None = None,
    progress: LiveProgress | None = None,
    missing_config_maps: tuple[str, ...] = (),
) -> ObservedTraining:
    """What was read, sorted into what it is.

    Args:
        config_maps, jobs, pods: the job's children.
    """
    by_name = {body["metadata"]["name"]: body for body in config_maps}
    records = (parse_result(body) for body in config_maps)
    return ObservedTraining(
        inputs=by_name.get(inputs_name(job)),
        run=by_name.get(run_name(job)),
        evaluation=by_name.get(evaluation_name(job)),
        children=Children(tuple(filter(None, records)), tuple(jobs), tuple(pods)),
        eval_run=eval_run,
        progress=progress,
        missing_config_maps=missing_config_maps,
    )


@dataclass(frozen=True, slots=True)
class _Course:
    """How far the stages came in this plan."""

    step: Step
    stage: str
    run: TrainConfig | None = None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()


def plan_training(
    job: FineTuneJob, observed: ObservedTraining, now: datetime, environment: Environment
) -> Plan:
    """The next step of a FineTuneJob: prepare, train, evaluate, tidy up."""
    now = now.replace(microsecond=0)
    if job.metadata.deletion_timestamp is not None:
        return Plan()
    if job.status.phase in TERMINAL and not _is_decided(observed.children):
        # The records are gone, the outcome is in status: it stays.
        return Plan()
    inputs, created = _take_inputs(job, observed, now, environment)
    job = _with_snapshot(job, inputs)
    course = _run_stages(job, observed, inputs, now, environment)
    evaluation, eval_run, events = _evaluate(job, observed, course)
    expiry = expire(job, job.status.phase in TERMINAL, observed.children.jobs, _ended_at(course), now)
    view = TrainingView(
        inputs=inputs,
        run=course.run,
        step=course.step,
        stage=course.stage,
        eval_run=eval_run,
        progress=_progress(observed, course),
    )
    return Plan(
        actions=(*created, *course.actions, *evaluation, *expiry.actions),
        status=build_training_status(job, view, now),
        events=(*course.events, *events, *expiry.events),
        requeue_after=soonest(course.step.requeue_after, expiry.requeue_after),
    )


def _is_decided(children: Children) -> bool:
    return any(record.final or (record.stage == TRAIN and record.report) for record in children.records)


def _take_inputs(
    job: FineTuneJob, observed: ObservedTraining, now: datetime, environment: Environment
) -> tuple[Inputs, tuple[Action, ...]]:
    """The snapshot as it is, or as it is to be."""
    if observed.inputs is not None:
        return parse_inputs(observed.inputs), ()
    spec, secret = job.spec, job.spec.base_model.secret_ref
    inputs = Inputs(
        spec=spec.model_dump_json(by_alias=True, exclude_none=True),
        image=spec.compute.image or environment.trainer_image,
        started=now,
        config=_prepare_config(job),
        ca_bundle=environment.ca_bundle,
        token_secret=secret.name if secret else "",
    )
    return inputs, (Create(build_inputs_config_map(job, inputs)),)


def _prepare_config(job: FineTuneJob) -> PrepareConfig:
    spec, meta = job.spec, job.metadata
    data = spec.dataset
    base_model, _ = resolve_base(spec, {})
    return PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_model,
        train=data.train.uri,
        validation=ValidationSource(fraction=float(data.validation.fraction or 0), uri=data.validation.uri),
        format=data.format,
        on_invalid_row=data.on_invalid_row,
        max_invalid_fraction=float(data.max_invalid_fraction or 0),
        deduplicate=data.deduplicate,
        method=resolve_method(spec),
        formats=spec.output.formats,
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
    )


def _with_snapshot(job: FineTuneJob, inputs: Inputs) -> FineTuneJob:
    """The job as it was at first sight, but for what may change later."""
    spec = FineTuneJobSpec.model_validate_json(inputs.spec)
    live = job.spec
    changes = {
        "suspend": live.suspend,
        "active_deadline_seconds": live.active_deadline_seconds,
        "ttl_seconds_after_finished": live.ttl_seconds_after_finished,
    }
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


def _run_stages(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, now: datetime, environment: Environment
) -> _Course:
    failure = None if observed.children.records else _invalid_uri(inputs)
    if failure is not None:
        step = refuse(job, PREPARE, observed.children, failure, now)
    else:
        step = advance(_prepare_stage(job, observed, inputs, environment), observed.children, now)
    course = _Course(step, PREPARE, None, step.actions, step.events)
    if step.state is not StageState.SUCCEEDED:
        return course
    return _run_training(job, observed, inputs, course, now, environment)


def _run_training(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    course: _Course,
    now: datetime,
    environment: Environment,
) -> _Course:
    children, report = course.step.children, course.step.report(PREPARE)
    assert report is not None
    resolved = parse_run(observed.run) if observed.run else resolve_run(job.spec, inputs, report)
    if isinstance(resolved, Failure) and not children.records_of(TRAIN):
        return _then(course, refuse(job, TRAIN, children, resolved, now), None, ())
    run = None if isinstance(resolved, Failure) else resolved
    missing = run is not None and observed.run is None and not children.records_of(TRAIN)
    snapshot = (Create(build_run_config_map(job, run)),) if run and missing else ()
    step = advance(_train_stage(job, observed, inputs, run, environment), children, now)
    return _then(course, step, run, snapshot)


def _then(course: _Course, step: Step, run: TrainConfig | None, created: tuple[Action, ...]) -> _Course:
    return _Course(
        step, TRAIN, run, (*course.actions, *created, *step.actions), (*course.events, *step.events)
    )


def _prepare_stage(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> Stage:
    return Stage(
        owner=job,
        name=PREPARE,
        build_job=lambda attempt: build_prepare_job(job, inputs, attempt, environment),
        backoff_limit=job.spec.backoff_limit,
        deadline_seconds=job.spec.active_deadline_seconds,
        references=_references(job, observed),
        started=FineTuneJobReason.PREPARING,
        ended=FineTuneJobReason.PREPARED,
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
    )


def _train_stage(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    run: TrainConfig | None,
    environment: Environment,
) -> Stage:
    def build(attempt: int) -> Body:
        assert run is not None
        return build_train_job(job, inputs, run, attempt, environment)

    return Stage(
        owner=job,
        name=TRAIN,
        build_job=build,
        backoff_limit=job.spec.backoff_limit,
        deadline_seconds=job.spec.active_deadline_seconds,
        references=_references(job, observed),
        started=FineTuneJobReason.TRAINING,
        ended=FineTuneJobReason.TRAINED,
        gpus=job.spec.compute.nodes * job.spec.compute.gpus_per_node,
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
    )


def _references(job: FineTuneJob, observed: ObservedTraining) -> References:
    spec = job.spec
    written = {
        "spec.baseModel.uri": spec.base_model.uri,
        "spec.dataset.train.uri": spec.dataset.train.uri,
        "spec.dataset.validation.uri": spec.dataset.validation.uri,
        "spec.workspace.uri": spec.workspace.uri if spec.workspace else None,
        "spec.output.uri": spec.output.uri,
    }
    secret = spec.base_model.secret_ref.name if spec.base_model.secret_ref else None
    secrets = {"spec.baseModel.secretRef.name": secret}
    return References.of(job.metadata.namespace, written, secrets, observed.missing_config_maps)


def _invalid_uri(inputs: Inputs) -> Failure | None:
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    try:
        for uri in (config.base_model, config.train, config.validation.uri, config.workspace, config.output):
            if uri:
                parse_uri(uri)
    except InvalidUri as error:
        return Failure(category=FailureCategory.USER_ERROR, reason="InvalidUri", message=str(error))
    return None


def _evaluate(
    job: FineTuneJob, observed: ObservedTraining, course: _Course
) -> tuple[tuple[Action, ...], str | None, tuple[Event, ...]]:
    """Make the EvalRun, once: its name, and how to come to it."""
    if observed.evaluation is not None:
        return (), parse_evaluation(observed.evaluation), ()
    evaluation = job.spec.evaluation
    if evaluation is None or course.stage != TRAIN or course.step.state is not StageState.SUCCEEDED:
        return (), None, ()
    name = eval_run_name(job)
    if observed.eval_run is not None and not owned_by(observed.eval_run, job.metadata.uid):
        message = f'EvalRun "{name}" exists already and is not this job\'s: the evaluation was not made.'
        taken = Event(FineTuneJobReason.EVAL_RUN_NAME_TAKEN, message, "Warning")
        return (Create(build_evaluation_config_map(job, None)),), None, (taken,)
    made = Event(FineTuneJobReason.EVALUATION_CREATED, f'EvalRun "{name}" judges the artefact.')
    create = Create(build_eval_run(job, evaluation))
    return (create, Create(build_evaluation_config_map(job, name))), name, (made,)


def _ended_at(course: _Course) -> datetime | None:
    over = course.step.state is StageState.FAILED or (
        course.stage == TRAIN and course.step.state is StageState.SUCCEEDED
    )
    record = course.step.last_record(course.stage)
    return record.ended_at if over and record else None


def _progress(observed: ObservedTraining, course: _Course) -> TrainerStatus | None:
    """News from the attempt that runs now; what an earlier one said is over."""
    news = observed.progress
    current = (course.stage, course.step.attempt)
    return news.status if news and (news.stage, news.attempt) == current else None
