"""From many votes to rows: what the majority says, or what each says."""

import difflib
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tunesmith_contract.labels import LabelAggregate, LabelOutput
from tunesmith_data.rows.schema.formats import Row

from .row_answers import as_approved, as_unpaired, with_answer, with_preferred
from .task_items import Item
from .tasks import TIE, YES, A, TaskKind
from .votes import Ballot


class LeftOut(StrEnum):
    """Why an item, or a vote, gives no row."""

    TOO_FEW = "tooFewAnnotators"
    NO_MAJORITY = "noMajority"
    TIE = "tie"
    NOT_APPROVED = "notApproved"


@dataclass(frozen=True, slots=True)
class Rules:
    """How votes become rows.

    Attributes:
        aggregate: one row an item, or one a vote.
        min_annotators: votes that an item needs.
        output: what becomes of judged answers.
        approve_from: the lowest rating of a good answer; None for three quarters of the scale.
    """

    aggregate: LabelAggregate = LabelAggregate.MAJORITY
    min_annotators: int = 1
    output: LabelOutput = LabelOutput.APPROVED
    approve_from: int | None = None

    def is_good(self, rating: float, scale: int) -> bool:
        """Whether an answer of that rating is a good one."""
        return rating >= (self.approve_from or math.ceil(0.75 * scale))


@dataclass(frozen=True)
class Labelled:
    """The rows that came out, in the order of the items, and how many gave none, by reason."""

    rows: tuple[Row, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)


def aggregate(items: Sequence[Item], ballot: Ballot, rules: Rules) -> Labelled:
    """The rows that votes make of items; the order of the annotators doesn't matter."""
    rows: list[Row] = []
    left_out: Counter[LeftOut] = Counter()
    for item in items:
        for result in _results(item, ballot.said(item.id), rules):
            if isinstance(result, LeftOut):
                left_out[result] += 1
            else:
                rows.append(result)
    return Labelled(tuple(rows), {reason: left_out[reason] for reason in LeftOut if left_out[reason]})


def decide(kind: TaskKind, values: Sequence[str]) -> str | None:
    """What most say: the median rating, the correction most like the others, else the most frequent choice.

    None where two choices are equally frequent.
    """
    if kind is TaskKind.RATING:
        return f"{statistics.median(int(value) for value in values):g}"
    frequent = Counter(values).most_common(2)
    if len(frequent) == 1 or frequent[0][1] > frequent[1][1]:
        return frequent[0][0]
    return _most_alike(values) if kind is TaskKind.CORRECTION else None


def _results(item: Item, values: Sequence[str], rules: Rules) -> Iterator[Row | LeftOut]:
    if len(values) < max(1, rules.min_annotators):
        yield LeftOut.TOO_FEW
    elif rules.aggregate is LabelAggregate.ALL:
        for value in values:
            yield _row(item, value, rules)
    else:
        decided = decide(item.task.kind, values)
        yield LeftOut.NO_MAJORITY if decided is None else _row(item, decided, rules)


def _row(item: Item, value: str, rules: Rules) -> Row | LeftOut:
    match item.task.kind:
        case TaskKind.PREFERENCE:
            if value == TIE:
                return LeftOut.TIE
            return with_preferred(item.row, rejected=(value == A) == item.flipped)
        case TaskKind.CLASSIFICATION | TaskKind.CORRECTION:
            return with_answer(item.row, value)
        case TaskKind.APPROVE:
            good = value == YES
        case TaskKind.RATING:
            good = rules.is_good(float(value), item.task.scale)
    if rules.output is LabelOutput.UNPAIRED:
        return as_unpaired(item.row, good)
    return as_approved(item.row) if good else LeftOut.NOT_APPROVED


def _most_alike(texts: Sequence[str]) -> str:
    """The text with the highest sum of Ratcliff-Obershelp similarities to all others; of equals the first sorted."""
    ordered = sorted(texts)
    return max(ordered, key=lambda text: sum(_likeness(text, other) for other in ordered))


def _likeness(first: str, second: str) -> float:
    # The ratio depends a little on which text comes first.
    first, second = sorted((first, second))
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
