"""What training takes of GPUs and money: expected before, expected while it runs, and in fact."""

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import Estimate, JobCost
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.api.values import format_duration
from tunesmith.decide.fit.estimate import Expected
from tunesmith.decide.plan import Event
from tunesmith.decide.run.summary import decimal
from tunesmith.decide.run.usage import measure_usage
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.shared_rules.duration import Duration

from .status_view import TrainingView

MINUTE, HOUR = 60, 3600

#: Longer than anything that ends: what a pod's numbers make of it has to be short enough for status.
_LONGEST = 10**9


def build_job_cost(job: FineTuneJob, view: TrainingView) -> JobCost:
    """What ended attempts took, and what all is expected to take: by the pods' own estimate once there is one."""
    used, budget, before = view.step.children.gpu_seconds, job.spec.budget, view.expected
    known = (_seen_by_pods(job, view), before.gpu_seconds if before else None, _told_before(job))
    expected = next((seconds for seconds in known if seconds is not None), None)
    price = _price(job)
    return JobCost(
        gpu_seconds=f"{used:.0f}",
        amount=None if price is None else f"{used * price:.2f}",
        currency=budget.currency if budget else None,
        estimated_gpu_seconds=None if expected is None else f"{expected:.0f}",
        estimated_amount=None if price is None or expected is None else f"{expected * price:.2f}",
    )


def build_estimate(job: FineTuneJob, view: TrainingView) -> Estimate | None:
    """What was expected before training began: as status has it, once nodes are no longer looked at."""
    expected, before = view.expected, job.status.estimate
    if expected is None or view.run is None:
        return before
    known = Estimate(steps=expected.steps, epochs=view.run.hyperparameters.epochs, tokens=expected.tokens)
    if expected.duration is None:
        return before or known
    return known.model_copy(update=_time_and_money(job, expected.duration))


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


def tell_expected(job: FineTuneJob, expected: Expected | None) -> tuple[Event, ...]:
    """What is expected, said before the first GPU is asked for; a warning where the budget is less."""
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
    """Of a GPU second."""
    written = job.spec.budget.price_per_gpu_hour if job.spec.budget else None
    return float(written) / HOUR if written else None


def _told_before(job: FineTuneJob) -> float | None:
    before = job.status.cost.estimated_gpu_seconds if job.status.cost else None
    return float(before) if before is not None else None


def _seen_by_pods(job: FineTuneJob, view: TrainingView) -> float | None:
    """Counted up to the news itself, so that it changes with it alone."""
    news, live = view.progress, view.step.job
    gpus = job.spec.compute.gpus_per_node
    if view.stage != TRAIN or news is None or live is None or not gpus:
        return None
    if news.estimated_remaining_seconds is None:
        return None
    pods = view.step.children.pods_of(TRAIN, view.step.attempt)
    so_far = measure_usage(live, pods, gpus, news.last_updated_time).gpu_seconds
    left = job.spec.compute.nodes * gpus * news.estimated_remaining_seconds
    return view.step.children.gpu_seconds + so_far + left
