"""Status and events about data: generated rows, and the prepared data set."""

from collections.abc import Mapping
from typing import Literal

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.generate import GenerationStatus
from tunesmith.api.job_status import DatasetStatus
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.plan import Event
from tunesmith_contract.progress import CALLS, COMPLETION_TOKENS, GENERATED_ROWS, PROMPT_TOKENS
from tunesmith_contract.report import DatasetReport, GenerationReport, IssueCount
from tunesmith_contract.stages import Stage

from .status_view import TrainingView

#: Issues that an event names; the condition names all.
_NAMED = 3


def build_generation_status(job: FineTuneJob, view: TrainingView) -> GenerationStatus | None:
    """Status of the generated rows: from the stage's report, or from its pod's latest update."""
    report = view.step.report(Stage.GENERATE)
    if report is not None and report.generation is not None:
        generation = report.generation
        places = {
            "uri": generation.generated.uri,
            "digest": generation.generated.digest,
            "manifest": generation.manifest.uri,
        }
        return GenerationStatus.model_validate(generation.to_dict() | places)
    if view.stage is not Stage.GENERATE or view.progress is None:
        return job.status.generation
    before = job.status.generation or GenerationStatus()
    counts = {
        "rows": _count(view.metrics, GENERATED_ROWS, before.rows),
        "calls": _count(view.metrics, CALLS, before.calls),
        "prompt_tokens": _count(view.metrics, PROMPT_TOKENS, before.prompt_tokens),
        "completion_tokens": _count(view.metrics, COMPLETION_TOKENS, before.completion_tokens),
    }
    return before.model_copy(update=counts)


def generation_events(job: FineTuneJob, view: TrainingView) -> tuple[Event, ...]:
    """Event about the generated rows, once; a warning where there is something to look at."""
    report = view.step.report(Stage.GENERATE)
    generation = report.generation if report else None
    already_in_status = job.status.generation is not None and job.status.generation.uri is not None
    if generation is None or already_in_status:
        return ()
    kind: Literal["Normal", "Warning"] = "Warning" if generation.warnings else "Normal"
    return (Event(FineTuneJobReason.GENERATED, _describe_generation(generation), kind),)


def build_dataset_status(dataset: DatasetReport) -> DatasetStatus:
    """Status of the prepared data set; the data report has the rest."""
    shown = dataset.to_dict() | {
        "issues": [issue._asdict() for issue in dataset.issues],
        "report": dataset.page,
    }
    return DatasetStatus.model_validate(shown)


def describe_dataset(dataset: DatasetReport) -> str:
    """Message of ``DataReady``: rows, rows left out and why, issues, and the address of the data report."""
    parts = [f"{dataset.train_rows:,} training and {dataset.validation_rows:,} validation rows"]
    left_out = {
        "duplicates": dataset.duplicates,
        "near duplicates": dataset.near_duplicates,
        "leaked": dataset.leaked_rows,
        "dropped": dataset.dropped_rows,
    }
    if counts := [f"{count:,} {name}" for name, count in left_out.items() if count]:
        *first, last = counts
        parts.append(f"left out: {', '.join(first)} and {last}" if first else f"left out: {last}")
    if dataset.issues:
        parts.append(_describe_issues(dataset.issues))
    if dataset.page:
        parts.append(f"report at {dataset.page}")
    return f"{'; '.join(parts)}."


def data_issue_events(job: FineTuneJob, dataset: DatasetReport | None) -> tuple[Event, ...]:
    """Warning about the gravest issues, once: when status did not have them before."""
    if dataset is None or job.status.dataset is not None or not (dataset.issues or dataset.warnings):
        return ()
    parts = [_describe_issues(dataset.issues, _NAMED)] if dataset.issues else []
    parts += [warning.rstrip(".") for warning in dataset.warnings]
    if dataset.page:
        parts.append(f"more in {dataset.page}")
    return (Event(FineTuneJobReason.DATA_ISSUES, f"{'; '.join(parts)}.", "Warning"),)


def _describe_generation(report: GenerationReport) -> str:
    tokens = report.prompt_tokens + report.completion_tokens
    cost = f", {report.amount} {report.currency}" if report.amount else ""
    warnings = "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in report.warnings)
    return f"{report.rows} rows were generated: {report.calls} calls, {tokens} tokens{cost}.{warnings}"


def _count(metrics: Mapping[str, str], name: str, before: int) -> int:
    """A metric of a pod as a count; the one before for anything else: pods are not trusted."""
    text = metrics.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else before


def _describe_issues(issues: tuple[IssueCount, ...], most: int | None = None) -> str:
    count, verb = len(issues), "finds" if len(issues) == 1 else "find"
    named = [
        f"{issue.check} ({'1 row' if issue.rows == 1 else f'{issue.rows:,} rows'})" for issue in issues[:most]
    ]
    more = count - len(named)
    issue_list = ", ".join([*named, f"and {more} more"] if more else named)
    return f"{count} {'check' if count == 1 else 'checks'} {verb} something to look at: {issue_list}"
