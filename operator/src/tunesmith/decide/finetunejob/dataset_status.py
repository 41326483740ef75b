"""What prepare found in the data, as status, its condition and an event tell it."""

from collections.abc import Iterable

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import DatasetStatus
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.plan import Event
from tunesmith_contract.report import DatasetReport, IssueCount

#: Issues that an event names; the condition names all.
_NAMED = 3


def show_dataset(dataset: DatasetReport) -> DatasetStatus:
    """The status; what it does not show lies in the report for people."""
    told = dataset.to_dict() | {
        "issues": [issue._asdict() for issue in dataset.issues],
        "report": dataset.page,
    }
    return DatasetStatus.model_validate(told)


def describe_dataset(dataset: DatasetReport) -> str:
    """Sentences for ``DataReady``: what is there, what was left out and why, what to look at, and where."""
    parts = [f"{dataset.train_rows:,} training and {dataset.validation_rows:,} validation rows"]
    left_out = {
        "duplicates": dataset.duplicates,
        "near duplicates": dataset.near_duplicates,
        "leaked": dataset.leaked_rows,
        "dropped": dataset.dropped_rows,
    }
    if counts := [f"{count:,} {name}" for name, count in left_out.items() if count]:
        parts.append(f"left out: {_listed(counts)}")
    if dataset.issues:
        parts.append(_describe_issues(dataset.issues))
    if dataset.page:
        parts.append(f"report at {dataset.page}")
    return f"{'; '.join(parts)}."


def tell_issues(job: FineTuneJob, dataset: DatasetReport | None) -> tuple[Event, ...]:
    """A warning that names the gravest, once: when status did not have them before."""
    if dataset is None or job.status.dataset is not None or not (dataset.issues or dataset.warnings):
        return ()
    parts = [_describe_issues(dataset.issues, _NAMED)] if dataset.issues else []
    parts += [warning.rstrip(".") for warning in dataset.warnings]
    if dataset.page:
        parts.append(f"more in {dataset.page}")
    return (Event(FineTuneJobReason.DATA_ISSUES, f"{'; '.join(parts)}.", "Warning"),)


def _describe_issues(issues: tuple[IssueCount, ...], most: int | None = None) -> str:
    count, verb = len(issues), "finds" if len(issues) == 1 else "find"
    named = [f"{issue.check} ({_rows(issue.rows)})" for issue in issues[:most]]
    more = count - len(named)
    told = ", ".join([*named, f"and {more} more"] if more else named)
    return f"{count} {'check' if count == 1 else 'checks'} {verb} something to look at: {told}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
