"""What training takes of GPUs and money: expected before, expected while it runs, and in fact."""

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobCost
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.manifests.train_job import STAGE as TRAIN

from .plan import Event
from .training_view import TrainingView
from .usage import measure_usage

HOUR = 3600


def build_job_cost(job: FineTuneJob, view: TrainingView) -> JobCost:
    """What ended attempts took, and what all is expected to take: by the pods' own estimate once there is one."""
    used, budget = view.step.children.gpu_seconds, job.spec.budget
    known = (_seen_by_pods(job, view), view.expected, _told_before(job))
    expected = next((seconds for seconds in known if seconds is not None), None)
    price = _price(job)
    return JobCost(
        gpu_seconds=f"{used:.0f}",
        amount=None if price is None else f"{used * price:.2f}",
        currency=budget.currency if budget else None,
        estimated_gpu_seconds=None if expected is None else f"{expected:.0f}",
        estimated_amount=None if price is None or expected is None else f"{expected * price:.2f}",
    )


def tell_expected(job: FineTuneJob, expected: float | None) -> tuple[Event, ...]:
    """What is expected, said before the first GPU is asked for; a warning where the budget is less."""
    if expected is None or job.spec.budget is None:
        return ()
    price, limit = _price(job), job.spec.budget.gpu_hours
    cost = "" if price is None else f", about {expected * price:.2f} {job.spec.budget.currency}"
    message = f"Training is expected to take about {expected / HOUR:.3g} GPU hours{cost}"
    if limit is None or expected <= float(limit) * HOUR:
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
    if news is None or live is None or news.estimated_remaining_seconds is None or not gpus:
        return None
    pods = view.step.children.pods_of(TRAIN, view.step.attempt)
    so_far = measure_usage(live, pods, gpus, news.last_updated_time).gpu_seconds
    left = job.spec.compute.nodes * gpus * news.estimated_remaining_seconds
    return view.step.children.gpu_seconds + so_far + left
