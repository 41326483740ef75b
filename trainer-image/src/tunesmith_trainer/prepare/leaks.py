"""What there is to say of rows that a held-out set holds too."""

from collections.abc import Iterator

from tunesmith_trainer.data.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_trainer.data.records import Side
from tunesmith_trainer.data.report import Leak
from tunesmith_trainer.data.split import CODES

from .cleaning import Cleaned


def leak_issues(cleaned: Cleaned) -> Iterator[Issue]:
    """Leaks of training rows, which are gone, and those of a validation set of its own, which may have stayed."""
    removed = int((cleaned.sides == CODES[Side.LEAKED]).sum())
    validated = cleaned.validation_leaks
    if trained := removed if cleaned.validation_kept else removed - validated:
        yield _training_issue(trained, [leak for leak in cleaned.leaks if leak.side is Side.TRAIN])
    if validated:
        build = _same_set_issue if cleaned.validation_kept else _validation_issue
        yield build(validated, [leak for leak in cleaned.leaks if leak.side is Side.VALIDATION])


def _training_issue(rows: int, leaks: list[Leak]) -> Issue:
    return Issue(
        check="leaked_rows",
        severity=Severity.WARNING,
        rows=rows,
        message=f"{_are(rows, 'training row')} held by {_holders(leaks)} too, and left out",
        advice="keep what is measured apart from what is learned: see the leaks, row by row",
        examples=_examples(leaks),
    )


def _validation_issue(rows: int, leaks: list[Leak]) -> Issue:
    return Issue(
        check="leaked_validation_rows",
        severity=Severity.WARNING,
        rows=rows,
        message=f"{_are(rows, 'validation row')} held by {_holders(leaks)} too, and left out",
        advice="keep what chooses the checkpoint apart from what measures it: see the leaks, row by row",
        examples=_examples(leaks),
    )


def _same_set_issue(rows: int, leaks: list[Leak]) -> Issue:
    """Of a validation set that is a suite, for the most part."""
    found = f"{rows:,} validation rows, most of them, are held by {_holders(leaks)} too"
    return Issue(
        check="validation_is_evaluated",
        severity=Severity.WARNING,
        rows=rows,
        message=f"{found}, and stay: a checkpoint chosen by them scores too well there",
        advice="validate on other rows, or on a fraction",
        examples=_examples(leaks),
    )


def _are(rows: int, noun: str) -> str:
    return f"{rows:,} {noun} is" if rows == 1 else f"{rows:,} {noun}s are"


def _holders(leaks: list[Leak]) -> str:
    return " and ".join(sorted({leak.held_out for leak in leaks}))


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
