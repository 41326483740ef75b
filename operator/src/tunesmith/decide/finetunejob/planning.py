"""What to do next about a FineTuneJob."""

from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobPhase, FineTuneJobReason
from tunesmith.decide.fit.admission import Admission, admit, find_gpu_memory, is_judged, judge
from tunesmith.decide.fit.estimate import Expected, expect_training
from tunesmith.decide.plan import Action, Create, Event, Plan, owned_by, soonest
from tunesmith.decide.run.attempts import advance, refuse
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.expiry import expire
from tunesmith.decide.run.stage import StageState, Step
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import build_eval_run, eval_run_name
from tunesmith.manifests.evaluation_config_map import build_evaluation_config_map, parse_evaluation
from tunesmith.manifests.generate_job import STAGE as GENERATE
from tunesmith.manifests.inputs_config_map import Inputs, build_inputs_config_map, parse_inputs
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.run_config_map import build_run_config_map, parse_run
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.progress import TrainerStatus
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.run_config import TrainConfig

from .claims import refuse_unshared
from .costs import tell_expected
from .inputs import invalid_uri, take_inputs, with_snapshot
from .observed import ObservedTraining
from .referenced_jobs import NotReady
from .results import find_results, news_of
from .run_config import referred_jobs, resolve_run
from .stages import generate_stage, prepare_stage, train_stage
from .status import build_training_status, build_waiting_status
from .status_view import TrainingView

#: The end of an earlier job wakes this one; this is for a change that was missed.
EARLIER_POLL_SECONDS = 60.0

TERMINAL = frozenset({FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED})


@dataclass(frozen=True, slots=True)
class _Course:
    """How far the stages came in this plan."""

    step: Step
    stage: str
    run: TrainConfig | None = None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    admission: Admission | None = None
    expected: Expected | None = None


def plan_training(
    job: FineTuneJob, observed: ObservedTraining, now: datetime, environment: Environment
) -> Plan:
    """The next step of a FineTuneJob: generate, prepare, train, evaluate, tidy up."""
    now = now.replace(microsecond=0)
    if job.metadata.deletion_timestamp is not None:
        return Plan()
    if job.status.phase in TERMINAL and not _is_decided(observed.children):
        # The records are gone, the outcome is in status: it stays.
        return Plan()
    if observed.inputs is not None:
        return _pursue(job, observed, parse_inputs(observed.inputs), (), now, environment)
    if observed.children.records and referred_jobs(job.spec):
        # It was refused, for what an earlier job came to, before there were inputs.
        return _conclude(
            job, observed, _Course(Step(StageState.FAILED, observed.children), PREPARE), None, now
        )
    inputs = take_inputs(job, observed.around.earlier, now, environment)
    if isinstance(inputs, NotReady):
        status = build_waiting_status(job, inputs.message, inputs.missing, now)
        return Plan(status=status, requeue_after=EARLIER_POLL_SECONDS)
    if isinstance(inputs, Failure):
        step = refuse(job, PREPARE, observed.children, inputs, now, FineTuneJobReason.EARLIER_JOB_FAILED)
        return _conclude(job, observed, _Course(step, PREPARE, None, step.actions, step.events), None, now)
    created = (Create(build_inputs_config_map(job, inputs)),)
    return _pursue(job, observed, inputs, created, now, environment)


def _pursue(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    created: tuple[Action, ...],
    now: datetime,
    environment: Environment,
) -> Plan:
    job = with_snapshot(job, inputs)
    course = _run_stages(job, observed, inputs, now, environment)
    return _conclude(job, observed, replace(course, actions=(*created, *course.actions)), inputs, now)


def _conclude(
    job: FineTuneJob, observed: ObservedTraining, course: _Course, inputs: Inputs | None, now: datetime
) -> Plan:
    evaluation, eval_run, events = _evaluate(job, observed, course)
    expiry = expire(job, job.status.phase in TERMINAL, observed.children.jobs, _ended_at(course), now)
    view = TrainingView(
        inputs=inputs,
        run=course.run,
        step=course.step,
        stage=course.stage,
        eval_run=eval_run,
        progress=_progress(observed, course),
        admission=course.admission,
        expected=course.expected,
    )
    results = find_results(job, view)
    return Plan(
        actions=(*course.actions, *evaluation, *expiry.actions),
        status=build_training_status(job, view, results, now),
        events=(*course.events, *events, *news_of(job, results, view), *expiry.events),
        requeue_after=soonest(course.step.requeue_after, expiry.requeue_after),
    )


def _is_decided(children: Children) -> bool:
    return any(record.final or (record.stage == TRAIN and record.report) for record in children.records)


def _run_stages(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, now: datetime, environment: Environment
) -> _Course:
    first = GENERATE if inputs.generate else PREPARE
    failure = None if observed.children.records else _refusal(job, observed, inputs)
    if failure is not None:
        step = refuse(job, first, observed.children, failure, now, failure.reason)
        return _Course(step, first, None, step.actions, step.events)
    course = _Course(Step(StageState.SUCCEEDED, observed.children), first)
    for name, make in ((GENERATE, generate_stage), (PREPARE, prepare_stage)):
        if name == GENERATE and not inputs.generate:
            continue
        stage = make(job, observed, inputs, environment)
        course = _then(course, name, advance(stage, course.step.children, now))
        if course.step.state is not StageState.SUCCEEDED:
            return course
    return _run_training(job, observed, inputs, course, now, environment)


def _refusal(job: FineTuneJob, observed: ObservedTraining, inputs: Inputs) -> Failure | None:
    """What is wrong whatever the data is."""
    return invalid_uri(inputs) or refuse_unshared(job, observed.around.claims)


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
    begun = bool(children.records_of(TRAIN)) or children.job_of(TRAIN, 1) is not None
    unshared = None if begun else refuse_unshared(job, observed.around.claims)
    if unshared is not None:
        return _then(course, TRAIN, refuse(job, TRAIN, children, unshared, now, unshared.reason))
    resolved, admission = _settle(job, observed, inputs, report)
    course = replace(course, admission=admission)
    if isinstance(resolved, Failure) and not children.records_of(TRAIN):
        return _then(course, TRAIN, refuse(job, TRAIN, children, resolved, now, resolved.reason))
    run = None if isinstance(resolved, Failure) else resolved
    missing = run is not None and observed.run is None and not children.records_of(TRAIN)
    snapshot = (Create(build_run_config_map(job, run)),) if run and missing else ()
    expected = expect_training(job.spec, observed.around.gpu_nodes, run, report) if run else None
    told = tell_expected(job, expected) if missing else ()
    course = replace(course, expected=expected, events=(*course.events, *told))
    step = advance(train_stage(job, observed, inputs, run, environment), children, now)
    return _then(course, TRAIN, step, run, snapshot)


def _settle(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, report: RunReport
) -> tuple[TrainConfig | Failure, Admission | None]:
    """The run, or why there is none; and the verdicts on it, until training has begun and status has them."""
    available = find_gpu_memory(job.spec, observed.around.gpu_nodes)
    if observed.run is not None:
        run = parse_run(observed.run)
        return run, None if is_judged(job.status) else judge(run, report, available)
    refused = next((each.failure for each in observed.children.records_of(TRAIN) if each.final), None)
    made = [each.report.generation for each in observed.children.records_of(GENERATE) if each.report]
    generated = next(iter(made), None)
    resolved = refused or resolve_run(job.spec, inputs, report, inputs.initial, available, generated)
    if isinstance(resolved, Failure):
        return resolved, None
    admission = admit(job.spec, resolved, report, available)
    return admission.failure or admission.run, admission


def _then(
    course: _Course,
    stage: str,
    step: Step,
    run: TrainConfig | None = None,
    created: tuple[Action, ...] = (),
) -> _Course:
    events = (*course.events, *step.events)
    actions = (*course.actions, *created, *step.actions)
    return replace(course, step=step, stage=stage, run=run, actions=actions, events=events)


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
    if observed.around.eval_run is not None and not owned_by(observed.around.eval_run, job.metadata.uid):
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
