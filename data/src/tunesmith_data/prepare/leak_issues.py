"""What there is to say of rows that a held-out set holds too."""

from collections.abc import Iterator

from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_data.rows.report.data_report import Leak
from tunesmith_data.rows.table.record import Side
from tunesmith_data.rows.table.split import CODES

from .cleaning import Cleaned


def leak_issues(cleaned: Cleaned) -> Iterator[Issue]:
    """Leaks of training rows, which are gone, and those of a validation set of its own, which may have stayed."""
    removed = int((cleaned.sides == CODES[Side.LEAKED]).sum())
    validated = cleaned.validation_leaks
    if trained := removed if cleaned.validation_kept else removed - validated:
        leaks = _leaks_of(cleaned, Side.TRAIN)
        found = f"{_are(trained, 'training row')} held by {_holders(leaks)} too, and left out"
        advice = "keep what is measured apart from what is learned: see the leaks, row by row"
        yield _issue("leaked_rows", trained, leaks, found, advice)
    if not validated:
        return
    leaks = _leaks_of(cleaned, Side.VALIDATION)
    if cleaned.validation_kept:
        found = f"{validated:,} validation rows, most of them, are held by {_holders(leaks)} too, and stay: "
        found += "a checkpoint chosen by them scores too well there"
        advice = "validate on other rows, or on a fraction"
        yield _issue("validation_is_evaluated", validated, leaks, found, advice)
    else:
        found = f"{_are(validated, 'validation row')} held by {_holders(leaks)} too, and left out"
        advice = "keep what chooses the checkpoint apart from what measures it: see the leaks, row by row"
        yield _issue("leaked_validation_rows", validated, leaks, found, advice)


def _issue(check: str, rows: int, leaks: list[Leak], message: str, advice: str) -> Issue:
    return Issue(
        check=check,
        severity=Severity.WARNING,
        rows=rows,
        message=message,
        advice=advice,
        examples=_examples(leaks),
    )


def _leaks_of(cleaned: Cleaned, side: Side) -> list[Leak]:
    return [leak for leak in cleaned.leaks if leak.side is side]


def _holders(leaks: list[Leak]) -> str:
    return " and ".join(sorted({leak.held_out for leak in leaks}))


def _are(rows: int, noun: str) -> str:
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
