"""The same question with answers that differ."""

from collections.abc import Iterator

import numpy as np

from tunesmith_trainer.data.findings import MAX_EXAMPLES, Severity

from .base import ColumnCheck
from .columns import Columns
from .evidence import Evidence, share_of
from .numbers import Counts, Digests, Mask, Positions, Scores
from .views import Kind

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
        group, value = _keys(columns)
        found = conflicts(group, value)
        if not found.any():
            return
        short = found & _short_groups(group, columns.answer_characters)
        hard = found if columns.kind in (Kind.PAIR, Kind.JUDGED) else short
        reported = hard if hard.any() else found
        positions = np.flatnonzero(reported)
        suspects = columns.rank(positions, _minority(group[positions], value[positions]))
        worst = suspects.positions[:MAX_EXAMPLES]
        others = _others(worst, positions, group, value, columns.digest)
        yield Evidence(
            check="contradicting_answers",
            severity=_severity(int(hard.sum()), columns.rows),
            message=_message(columns, len(np.unique(group[positions])), len(positions)),
            advice=_advice(columns.kind, bool(hard.any())),
            suspects=suspects,
            details={int(each): _detail(columns.kind) for each in worst},
            others=others,
        )


def conflicts(group: Digests, value: Digests) -> Mask:
    """Which rows belong to a group (0: to none) that has more than one value."""
    order = np.lexsort((value, group))
    groups, values = group[order], value[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.r_[starts, len(groups)])
    differ = (values[starts] != values[starts + sizes - 1]) & (groups[starts] != 0)
    mask = np.zeros(len(group), dtype=bool)
    mask[order] = np.repeat(differ, sizes)
    return mask


def mix(*keys: Digests) -> Digests:
    """A digest of several digests, in their order; the finalizer of splitmix64 (Steele et al. 2014)."""
    mixed = np.zeros_like(keys[0])
    for key in keys:
        mixed = (mixed ^ key) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _keys(columns: Columns) -> tuple[Digests, Digests]:
    """What has to agree, and on what."""
    zero = np.uint64(0)
    match columns.kind:
        case Kind.PAIR:
            low = np.minimum(columns.answer, columns.rejected)
            high = np.maximum(columns.answer, columns.rejected)
            group = mix(columns.prompt, low, high)
            return group, (columns.answer == low).astype(np.uint64)
        case Kind.JUDGED:
            return mix(columns.prompt, columns.answer), columns.label.astype(np.uint64)
    return np.where(columns.answer == 0, zero, columns.prompt), columns.answer


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


def _message(columns: Columns, groups: int, rows: int) -> str:
    match columns.kind:
        case Kind.PAIR:
            return f"{groups:,} pairs are preferred one way and the other: {share_of(rows, columns.rows)}"
        case Kind.JUDGED:
            return f"{groups:,} answers are judged good and bad: {share_of(rows, columns.rows)}"
    return f"{groups:,} prompts have answers that differ: {share_of(rows, columns.rows)}"


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
