"""Check ``class_imbalance``: classes, or good and bad answers, of very different sizes."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity, excerpt
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import RowKind

#: Share of the largest class from which always answering it scores well.
_DOMINATING = 0.8
#: A class with fewer rows is learned badly, where others have more than ten times as many.
_FEW = 10
#: A good answer for ten bad ones, or the other way round: what KTO was tried on (arXiv:2402.01306, section 4).
_JUDGED_RATIO = 10
_NAME_CHARACTERS = 40


class ClassImbalance(ColumnCheck):
    """``class_imbalance``: one class has at least 80 % of the rows; classes of less than ten rows.

    Of judged answers: only good or only bad ones, or more than ten of one for one of the other.
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts from the columns."""
        if columns.kind is RowKind.JUDGED:
            yield from _judged(columns)
        elif columns.classes and columns.classes.counts[0] >= _DOMINATING * columns.rows:
            yield _dominating(columns)
        elif columns.classes:
            yield from _rare(columns)


def _dominating(columns: Columns) -> IssueDraft:
    classes = columns.classes
    assert classes
    name, count = _name(columns, 0), int(classes.counts[0])
    others = np.flatnonzero((columns.answer != 0) & (classes.codes != 0))
    return IssueDraft(
        check="class_imbalance",
        severity=Severity.WARNING,
        message=f"{share_of(count, columns.rows)} have the answer {name!r}: always giving it is nearly as good",
        advice="add rows with other answers, or leave some of these out, and compare models class by class",
        flagged=columns.rank(others if len(others) else np.flatnonzero(classes.codes == 0)),
    )


def _rare(columns: Columns) -> Iterator[IssueDraft]:
    classes = columns.classes
    assert classes
    rare = np.flatnonzero((classes.counts < _FEW) & (classes.counts * 10 < classes.counts[0]))
    if not len(rare):
        return
    flagged = columns.rank(np.flatnonzero(np.isin(classes.codes, rare)))
    yield IssueDraft(
        check="class_imbalance",
        severity=Severity.NOTE,
        message=f"{len(rare):,} of {len(classes.counts):,} classes have less than {_FEW} rows: "
        f"{share_of(flagged.count, columns.rows)}, such as {_name(columns, int(rare[0]))!r}",
        advice=f"add rows of these classes, at least {_FEW} of each, or merge them",
        flagged=flagged,
        details={int(position): "its class is rare" for position in flagged.positions[:MAX_EXAMPLES]},
    )


def _judged(columns: Columns) -> Iterator[IssueDraft]:
    good = int((columns.label == 1).sum())
    bad = columns.rows - good
    fewer, more = sorted((good, bad))
    if fewer * _JUDGED_RATIO >= more:
        return
    minority = 1 if good < bad else 0
    rarer = "good" if minority else "bad"
    weight = "desirableWeight" if minority else "undesirableWeight"
    positions = np.flatnonzero(columns.label == minority) if fewer else np.arange(columns.rows)
    yield IssueDraft(
        check="class_imbalance",
        severity=Severity.WARNING if fewer else Severity.ERROR,
        message=f"{good:,} answers are judged good and {bad:,} bad: {percent(fewer / columns.rows)} are {rarer}",
        advice=(
            f"add {rarer} answers, or set {weight} to about {more / fewer:.0f}, so that both weigh the same"
            if fewer
            else f"add {rarer} answers: without both, what makes an answer good can't be learned"
        ),
        flagged=columns.rank(positions),
    )


def _name(columns: Columns, number: int) -> str:
    assert columns.classes
    (view,) = columns.views(columns.classes.first[number : number + 1])
    name = excerpt(view.answer)
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"
