"""Issues from cleaning: leaked rows, and near duplicates that are kept."""

from collections.abc import Iterator

from tunesmith_contract.run_config import Deduplicate, PrepareConfig
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_data.rows.report.data_report import Leak
from tunesmith_data.rows.table.record import RowSide
from tunesmith_data.rows.table.split import SIDE_CODES

from .cleaning import CleaningResult


def cleaning_issues(cleaned: CleaningResult, config: PrepareConfig) -> Iterator[Issue]:
    """Issues from cleaning: leaks, and near duplicates that are kept."""
    yield from _leak_issues(cleaned)
    if cleaned.near_rows and config.deduplicate is not Deduplicate.NEAR:
        near = [cluster for cluster in cleaned.clusters if cluster.similarity < 1]
        yield Issue(
            check="near_duplicates",
            severity=Severity.NOTE,
            rows=cleaned.near_rows,
            message=f"{cleaned.near_rows:,} rows nearly repeat others",
            advice="write deduplicate: Near to leave them out",
            examples=tuple(
                Example(
                    place=cluster.rows[1],
                    excerpt=cluster.excerpt,
                    other=cluster.rows[0],
                    score=cluster.similarity,
                )
                for cluster in near[:MAX_EXAMPLES]
            ),
        )


def _leak_issues(cleaned: CleaningResult) -> Iterator[Issue]:
    """Issues for leaked training rows, which are removed, and leaked validation rows, which may be kept."""
    removed = int((cleaned.sides == SIDE_CODES[RowSide.LEAKED]).sum())
    validated = cleaned.validation_leaks
    if trained := removed if cleaned.validation_kept else removed - validated:
        leaks = _leaks_of(cleaned, RowSide.TRAIN)
        message = f"{_count_phrase(trained, 'training row')} also in {_held_out_names(leaks)}, and left out"
        advice = "remove evaluation rows from the training data: the leaks are listed row by row"
        yield _issue("leaked_rows", trained, leaks, message, advice)
    if not validated:
        return
    leaks = _leaks_of(cleaned, RowSide.VALIDATION)
    if cleaned.validation_kept:
        message = (
            f"{validated:,} validation rows, most of them, are also in {_held_out_names(leaks)}, and stay: "
        )
        message += "a checkpoint chosen by them scores too well there"
        advice = "validate on other rows, or on a fraction"
        yield _issue("validation_is_evaluated", validated, leaks, message, advice)
    else:
        message = (
            f"{_count_phrase(validated, 'validation row')} also in {_held_out_names(leaks)}, and left out"
        )
        advice = "remove evaluation rows from the validation data: the leaks are listed row by row"
        yield _issue("leaked_validation_rows", validated, leaks, message, advice)


def _issue(check: str, rows: int, leaks: list[Leak], message: str, advice: str) -> Issue:
    return Issue(
        check=check,
        severity=Severity.WARNING,
        rows=rows,
        message=message,
        advice=advice,
        examples=_examples(leaks),
    )


def _leaks_of(cleaned: CleaningResult, side: RowSide) -> list[Leak]:
    return [leak for leak in cleaned.leaks if leak.side is side]


def _held_out_names(leaks: list[Leak]) -> str:
    return " and ".join(sorted({leak.held_out for leak in leaks}))


def _count_phrase(rows: int, noun: str) -> str:
    return f"{rows:,} {noun} is" if rows == 1 else f"{rows:,} {noun}s are"


def _examples(leaks: list[Leak]) -> tuple[Example, ...]:
    return tuple(
        Example(
            place=leak.row,
            excerpt=leak.excerpt,
            detail=f"{leak.kind} in {leak.held_out}",
            other=leak.other,
            other_excerpt=leak.other_excerpt,
            score=leak.similarity,
        )
        for leak in leaks[:MAX_EXAMPLES]
    )
