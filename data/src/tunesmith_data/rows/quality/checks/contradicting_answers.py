"""The same question with answers that differ."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.array_types import Counts, Digests, Mask, Positions, Scores
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.digests import mix
from tunesmith_data.rows.quality.evidence import Evidence, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import Kind

#: All answers to a question being shorter, one of them has to be wrong; longer ones may be several good ones.
_SHORT = 100
#: From this share of contradicting rows on, the data can't be learned.
_MANY = 0.2


class ContradictingAnswers(ColumnCheck):
    """``contradicting_answers``: the same prompt, system message and tools, and another answer.

    Of preferences: a pair that is the other way round elsewhere. Of judged answers: the same answer judged both ways.
    Long free texts may all be good answers: they are noted only.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say, short answers first."""
        group, value = columns.asked, columns.said
        found = columns.contradicting
        if not found.any():
            return
        short = found & _short_groups(group, columns.answer_characters)
        hard = found if columns.kind in (Kind.PAIR, Kind.JUDGED) else short
        reported = hard if hard.any() else found
        aside = int(found.sum() - reported.sum())
        positions = np.flatnonzero(reported)
        suspects = columns.rank(positions, _minority(group[positions], value[positions]))
        worst = suspects.positions[:MAX_EXAMPLES]
        others = _others(worst, positions, group, value, columns.digest)
        yield Evidence(
            check="contradicting_answers",
            severity=_severity(int(hard.sum()), columns.rows),
            message=_message(columns, len(np.unique(group[positions])), len(positions), aside),
            advice=_advice(columns.kind, bool(hard.any())),
            suspects=suspects,
            details={int(each): _detail(columns.kind) for each in worst},
            others=others,
        )


def _short_groups(group: Digests, characters: Counts) -> Mask:
    """Which rows belong to a group whose answers are all short."""
    long_groups = np.unique(group[characters > _SHORT])
    return ~np.isin(group, long_groups)


def _minority(group: Digests, value: Digests) -> Scores:
    """The share of its group that says something else than the row."""
    _, by_group, in_group = np.unique(group, return_inverse=True, return_counts=True)
    _, by_value, agreeing = np.unique(mix(group, value), return_inverse=True, return_counts=True)
    share: Scores = 1 - agreeing[by_value] / in_group[by_group]
    return share


def _others(
    worst: Positions, positions: Positions, group: Digests, value: Digests, digest: Digests
) -> dict[int, int]:
    """For each row one of its group that says something else."""
    others = {}
    for each in worst:
        rivals = positions[(group[positions] == group[each]) & (value[positions] != value[each])]
        others[int(each)] = int(rivals[np.argmin(digest[rivals])])
    return others


def _severity(hard: int, rows: int) -> Severity:
    if hard >= _MANY * rows:
        return Severity.ERROR
    return Severity.WARNING if hard else Severity.NOTE


def _message(columns: Columns, groups: int, rows: int, aside: int) -> str:
    share = share_of(rows, columns.rows)
    match columns.kind:
        case Kind.PAIR:
            return f"{share} prefer an answer that another row rejects in favour of the other (pairs: {groups:,})"
        case Kind.JUDGED:
            return f"{share} judge an answer good that another row judges bad, or bad and good (answers: {groups:,})"
    more = f"; so do {aside:,} rows with long answers, which may all be good" if aside else ""
    return f"{share} share a prompt with another row, and have another answer (prompts: {groups:,}){more}"


def _advice(kind: Kind, hard: bool) -> str:
    if kind in (Kind.PAIR, Kind.JUDGED):
        return "decide which answer is better, and leave the other row out"
    if hard:
        return "decide which answer is right, and leave the others out; or put into the prompt what makes them differ"
    return "several long answers to one prompt may all be good: keep those that you want to read"


def _detail(kind: Kind) -> str:
    match kind:
        case Kind.PAIR:
            return "the same two answers are preferred the other way round elsewhere"
        case Kind.JUDGED:
            return "the same answer is judged the other way elsewhere"
    return "the same prompt has another answer elsewhere"
