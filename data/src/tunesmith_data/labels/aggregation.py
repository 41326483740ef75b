"""Aggregation of votes into rows: the majority's answer, or one row for each vote."""

import difflib
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tunesmith_contract.labels import LabelAggregate, LabelOutput
from tunesmith_data.rows.schema.formats import Row

from .row_answers import with_answer, with_label, with_preference, without_label
from .task_items import LabelItem
from .tasks import TIE, YES, A, TaskKind
from .votes import VoteTable


class OmissionReason(StrEnum):
    """Reason why an item, or a vote, yields no row."""

    TOO_FEW = "tooFewAnnotators"
    NO_MAJORITY = "noMajority"
    TIE = "tie"
    NOT_APPROVED = "notApproved"


@dataclass(frozen=True, slots=True)
class AggregationRules:
    """Rules for turning votes into rows.

    Attributes:
        aggregate: one row an item, or one a vote.
        min_annotators: votes that an item needs.
        output: rows to make from judged answers.
        approve_from: the lowest rating of a good answer; None for three quarters of the scale.
    """

    aggregate: LabelAggregate = LabelAggregate.MAJORITY
    min_annotators: int = 1
    output: LabelOutput = LabelOutput.APPROVED
    approve_from: int | None = None

    def is_good(self, rating: float, scale: int) -> bool:
        """True if an answer with that rating counts as good."""
        return rating >= (self.approve_from or math.ceil(0.75 * scale))


@dataclass(frozen=True)
class LabeledRows:
    """Rows in the order of the items, and the number of omissions by reason."""

    rows: tuple[Row, ...]
    left_out: Mapping[OmissionReason, int] = field(default_factory=dict)


def aggregate(items: Sequence[LabelItem], votes_by_item: VoteTable, rules: AggregationRules) -> LabeledRows:
    """Rows from the votes on items; independent of the order of annotators."""
    rows: list[Row] = []
    left_out: Counter[OmissionReason] = Counter()
    for item in items:
        for result in _item_rows(item, votes_by_item.values_for(item.id), rules):
            if isinstance(result, OmissionReason):
                left_out[result] += 1
            else:
                rows.append(result)
    return LabeledRows(
        tuple(rows), {reason: left_out[reason] for reason in OmissionReason if left_out[reason]}
    )


def majority_value(kind: TaskKind, values: Sequence[str]) -> str | None:
    """Majority value: median rating, most similar correction, or most frequent choice.

    None where two choices are equally frequent.
    """
    if kind is TaskKind.RATING:
        return f"{statistics.median(int(value) for value in values):g}"
    frequent = Counter(values).most_common(2)
    if len(frequent) == 1 or frequent[0][1] > frequent[1][1]:
        return frequent[0][0]
    return _most_similar(values) if kind is TaskKind.CORRECTION else None


def _item_rows(
    item: LabelItem, values: Sequence[str], rules: AggregationRules
) -> Iterator[Row | OmissionReason]:
    if len(values) < max(1, rules.min_annotators):
        yield OmissionReason.TOO_FEW
    elif rules.aggregate is LabelAggregate.ALL:
        for value in values:
            yield _row(item, value, rules)
    else:
        decided = majority_value(item.task.kind, values)
        yield OmissionReason.NO_MAJORITY if decided is None else _row(item, decided, rules)


def _row(item: LabelItem, value: str, rules: AggregationRules) -> Row | OmissionReason:
    match item.task.kind:
        case TaskKind.PREFERENCE:
            if value == TIE:
                return OmissionReason.TIE
            return with_preference(item.row, rejected=(value == A) == item.flipped)
        case TaskKind.CLASSIFICATION | TaskKind.CORRECTION:
            return with_answer(item.row, value)
        case TaskKind.APPROVE:
            good = value == YES
        case TaskKind.RATING:
            good = rules.is_good(float(value), item.task.scale)
    if rules.output is LabelOutput.UNPAIRED:
        return with_label(item.row, good)
    return without_label(item.row) if good else OmissionReason.NOT_APPROVED


def _most_similar(texts: Sequence[str]) -> str:
    """The text with the highest sum of Ratcliff-Obershelp similarities to all others; of equals the first sorted."""
    ordered = sorted(texts)
    return max(ordered, key=lambda text: sum(_similarity(text, other) for other in ordered))


def _similarity(first: str, second: str) -> float:
    # The ratio depends a little on which text comes first.
    first, second = sorted((first, second))
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
