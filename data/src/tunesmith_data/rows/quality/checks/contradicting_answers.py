"""Check ``contradicting_answers``: equal questions with different answers."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.arrays import Digests, Positions, Scores, mix
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import RowKind

#: If all answers to a question are shorter, one of them must be wrong; several longer ones may all be good.
_SHORT = 100
#: From this share of contradicting rows on, the data can't be learned.
_MANY = 0.2


class ContradictingAnswers(ColumnCheck):
    """``contradicting_answers``: the same prompt, system message and tools, and another answer.

    Of preferences: a pair that is the other way round elsewhere. Of judged answers: the same answer judged both ways.
    Long free texts may all be good answers: they are noted only.
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft; contradicting short answers take precedence."""
        group, value = columns.group_key, columns.label_key
        contradicting = columns.contradicting
        if not contradicting.any():
            return
        long_groups = np.unique(group[columns.answer_characters > _SHORT])
        short = contradicting & ~np.isin(group, long_groups)
        hard = contradicting if columns.kind in (RowKind.PAIR, RowKind.JUDGED) else short
        reported = hard if hard.any() else contradicting
        long_answers = int(contradicting.sum() - reported.sum())
        positions = np.flatnonzero(reported)
        flagged = columns.rank(positions, _share_disagreeing(group[positions], value[positions]))
        worst = flagged.positions[:MAX_EXAMPLES]
        others = _contradicting_rows(worst, positions, group, value, columns.digest)
        yield IssueDraft(
            check="contradicting_answers",
            severity=_severity(int(hard.sum()), columns.rows),
            message=_message(columns, len(np.unique(group[positions])), len(positions), long_answers),
            advice=_advice(columns.kind, bool(hard.any())),
            flagged=flagged,
            details={int(position): _detail(columns.kind) for position in worst},
            others=others,
        )


def _share_disagreeing(group: Digests, value: Digests) -> Scores:
    """Share of each row's group that has a different answer."""
    _, by_group, in_group = np.unique(group, return_inverse=True, return_counts=True)
    _, by_value, agreeing = np.unique(mix(group, value), return_inverse=True, return_counts=True)
    share: Scores = 1 - agreeing[by_value] / in_group[by_group]
    return share


def _contradicting_rows(
    worst: Positions, positions: Positions, group: Digests, value: Digests, digest: Digests
) -> dict[int, int]:
    """For each row one of its group with a different answer."""
    others = {}
    for position in worst:
        rivals = positions[(group[positions] == group[position]) & (value[positions] != value[position])]
        others[int(position)] = int(rivals[np.argmin(digest[rivals])])
    return others


def _severity(hard: int, rows: int) -> Severity:
    if hard >= _MANY * rows:
        return Severity.ERROR
    return Severity.WARNING if hard else Severity.NOTE


def _message(columns: Columns, groups: int, rows: int, long_answers: int) -> str:
    share = share_of(rows, columns.rows)
    match columns.kind:
        case RowKind.PAIR:
            return (
                f"{share} prefer an answer that another row rejects in favor of the other (pairs: {groups:,})"
            )
        case RowKind.JUDGED:
            return f"{share} judge an answer good that another row judges bad, or bad and good (answers: {groups:,})"
    more = f"; so do {long_answers:,} rows with long answers, which may all be good" if long_answers else ""
    return f"{share} share a prompt with another row, and have another answer (prompts: {groups:,}){more}"


def _advice(kind: RowKind, hard: bool) -> str:
    if kind in (RowKind.PAIR, RowKind.JUDGED):
        return "decide which answer is better, and leave the other row out"
    if hard:
        return "decide which answer is right, and leave the others out; or put into the prompt what makes them differ"
    return "several long answers to one prompt may all be good: keep those that you want to read"


def _detail(kind: RowKind) -> str:
    match kind:
        case RowKind.PAIR:
            return "the same two answers are preferred the other way round elsewhere"
        case RowKind.JUDGED:
            return "the same answer is judged the other way elsewhere"
    return "the same prompt has another answer elsewhere"
