"""GPU time and cost of training: estimated before it begins, estimated while it runs, and measured."""

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import Estimate, JobCost
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.api.values import format_duration
from tunesmith.decide.fit.estimate import Expected
from tunesmith.decide.plan import Event
from tunesmith.decide.run.summary import decimal
from tunesmith.decide.run.usage import measure_usage
from tunesmith_contract.shared_rules.duration import Duration
from tunesmith_contract.stages import Stage

from .status_view import TrainingView

MINUTE, HOUR = 60, 3600

#: Longer than any training: bounds the text in status, whatever numbers a pod sends.
_LONGEST = 10**9


def build_job_cost(job: FineTuneJob, view: TrainingView) -> JobCost:
    """Cost of the ended attempts, and of the whole job as expected: by the pods' own estimate once there is one."""
    used, budget, before = view.step.children.gpu_seconds, job.spec.budget, view.expected
    if view.search is not None:
        used += view.search.gpu_seconds
    in_status = job.status.cost.estimated_gpu_seconds if job.status.cost else None
    estimates = (
        _live_estimate(job, view),
        before.gpu_seconds if before else None,
        None if in_status is None else float(in_status),
    )
    expected = next((seconds for seconds in estimates if seconds is not None), None)
    price = _price(job)
    return JobCost(
        gpu_seconds=f"{used:.0f}",
        amount=None if price is None else f"{used * price:.2f}",
        currency=budget.currency if budget else None,
        estimated_gpu_seconds=None if expected is None else f"{expected:.0f}",
        estimated_amount=None if price is None or expected is None else f"{expected * price:.2f}",
        evaluation_gpu_seconds=None
        if view.evaluation_gpu_seconds is None
        else f"{view.evaluation_gpu_seconds:.0f}",
    )


def build_estimate(job: FineTuneJob, view: TrainingView) -> Estimate | None:
    """Estimate made before training began; the one in status once nodes are no longer read."""
    expected, before = view.expected, job.status.estimate
    if expected is None or view.run is None:
        return before
    estimate = Estimate(steps=expected.steps, epochs=view.run.hyperparameters.epochs, tokens=expected.tokens)
    if expected.duration is None:
        return before or estimate
    return estimate.model_copy(update=_time_and_money(job, expected.duration))


def _time_and_money(job: FineTuneJob, duration: Duration) -> dict[str, str | None]:
    price, budget = _price(job), job.spec.budget
    seconds = min(duration.seconds, _LONGEST)
    rounded = round(seconds / MINUTE) * MINUTE if seconds >= 10 * MINUTE else seconds
    return {
        "duration": format_duration(rounded),
        "gpu_hours": decimal(float(f"{duration.gpu_seconds / HOUR:.3g}")),
        "amount": None if price is None else f"{duration.gpu_seconds * price:.2f}",
        "currency": budget.currency if budget else None,
    }


def budget_events(job: FineTuneJob, expected: Expected | None) -> tuple[Event, ...]:
    """Event with the expected cost, before the first GPU is asked for; a warning where the budget is less."""
    gpu_seconds = expected.gpu_seconds if expected else None
    if gpu_seconds is None or job.spec.budget is None:
        return ()
    price, limit = _price(job), job.spec.budget.gpu_hours
    cost = "" if price is None else f", about {gpu_seconds * price:.2f} {job.spec.budget.currency}"
    message = f"Training is expected to take about {gpu_seconds / HOUR:.3g} GPU hours{cost}"
    if limit is None or gpu_seconds <= float(limit) * HOUR:
        return (Event(FineTuneJobReason.BUDGET_ESTIMATED, f"{message}."),)
    more = f"{message}, and budget.gpuHours is {limit}: it may be stopped before its end, with a checkpoint."
    return (Event(FineTuneJobReason.BUDGET_ESTIMATED, more, "Warning"),)


def _price(job: FineTuneJob) -> float | None:
    """Price of a GPU second."""
    written = job.spec.budget.price_per_gpu_hour if job.spec.budget else None
    return float(written) / HOUR if written else None


def _live_estimate(job: FineTuneJob, view: TrainingView) -> float | None:
    """GPU seconds of the whole job by the pods' own estimate; counted up to their latest update alone."""
    update, live_job = view.progress, view.step.job
    gpus = job.spec.compute.gpus_per_node
    if view.stage is not Stage.TRAIN or update is None or live_job is None or not gpus:
        return None
    if update.estimated_remaining_seconds is None:
        return None
    pods = view.step.children.pods_of(Stage.TRAIN, view.step.attempt)
    used = measure_usage(live_job, pods, gpus, update.last_updated_time).gpu_seconds
    remaining = job.spec.compute.nodes * gpus * update.estimated_remaining_seconds
    return view.step.children.gpu_seconds + used + remaining
