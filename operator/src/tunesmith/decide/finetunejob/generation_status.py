"""What is said of the rows that a teacher makes, while it makes them and afterwards."""

from collections.abc import Mapping
from typing import Literal

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.generate import GenerationStatus
from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.plan import Event
from tunesmith.manifests.generate_job import STAGE as GENERATE
from tunesmith_contract.progress import CALLS, COMPLETION_TOKENS, GENERATED_ROWS, PROMPT_TOKENS
from tunesmith_contract.report import GenerationReport

from .status_view import TrainingView


def show_generation(job: FineTuneJob, view: TrainingView) -> GenerationStatus | None:
    """What is known of the rows: as the stage reported it, or as its pod says it is so far."""
    report = view.step.report(GENERATE)
    if report is not None and report.generation is not None:
        return _reported(report.generation)
    if view.stage != GENERATE or view.progress is None:
        return job.status.generation
    before = job.status.generation or GenerationStatus()
    counts = {
        "rows": _count(view.metrics, GENERATED_ROWS, before.rows),
        "calls": _count(view.metrics, CALLS, before.calls),
        "prompt_tokens": _count(view.metrics, PROMPT_TOKENS, before.prompt_tokens),
        "completion_tokens": _count(view.metrics, COMPLETION_TOKENS, before.completion_tokens),
    }
    return before.model_copy(update=counts)


def tell_generation(job: FineTuneJob, view: TrainingView) -> tuple[Event, ...]:
    """An event on what was made, once; a warning where there is something to look at."""
    report = view.step.report(GENERATE)
    made = report.generation if report else None
    told = job.status.generation is not None and job.status.generation.uri is not None
    if made is None or told:
        return ()
    kind: Literal["Normal", "Warning"] = "Warning" if made.warnings else "Normal"
    return (Event(Reason.GENERATED, _describe(made), kind),)


def _describe(report: GenerationReport) -> str:
    took = f"{report.calls} calls, {report.prompt_tokens + report.completion_tokens} tokens"
    cost = f", {report.amount} {report.currency}" if report.amount else ""
    warned = "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in report.warnings)
    return f"{report.rows} rows were generated: {took}{cost}.{warned}"


def _reported(report: GenerationReport) -> GenerationStatus:
    found = report.to_dict() | {
        "uri": report.generated.uri,
        "digest": report.generated.digest,
        "manifest": report.manifest.uri,
    }
    return GenerationStatus.model_validate(found)


def _count(metrics: Mapping[str, str], name: str, before: int) -> int:
    """A pod's word for a count, if it is one: pods are not to be believed blindly."""
    word = metrics.get(name, "")
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 15 else before
