"""Columns of numbers about rows: contradictions, ranks, and what a classification task is made from."""

from typing import Any

import numpy as np
import pytest

from tunesmith_data.rows.quality.columns import Columns, ColumnWriter
from tunesmith_data.rows.quality.issue_draft import MAX_FLAGGED
from tunesmith_data.rows.quality.row_views import build_view
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.table.record import Record


def columns_of(rows: list[Row], method: str = "sft") -> Columns:
    records = [Record(index, "rows.jsonl", index + 1, row) for index, row in enumerate(rows)]
    writer = ColumnWriter()
    writer.add([build_view(record, position) for position, record in enumerate(records)])
    return writer.close(method, lambda indexes: [records[index] for index in indexes])


def completion(prompt: str, answer: str, **more: Any) -> Row:
    return {"prompt": prompt, "completion": answer, **more}


def pair(prompt: str, chosen: str, rejected: str) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize(
    ("rows", "contradicting"),
    [
        ([completion("a", "x"), completion("a", "y"), completion("b", "x")], [True, True, False]),
        ([completion("a", "x"), completion(" a ", "X.")], [False, False]),
        ([completion("a", "x"), completion("a", "y", tools=[{"name": "t"}])], [False, False]),
        ([completion("a", "x", label=True), completion("a", "x", label=False)], [True, True]),
        ([completion("a", "x", label=True), completion("a", "y", label=False)], [False, False]),
        ([pair("a", "x", "y"), pair("a", "y", "x")], [True, True]),
        ([pair("a", "x", "y"), pair("a", "z", "x")], [False, False]),
        ([{"prompt": "a"}, {"prompt": "a"}], [False, False]),
    ],
)
def test_contradictions(rows: list[Row], contradicting: list[bool]) -> None:
    assert columns_of(rows).contradicting.tolist() == contradicting


def test_rank_goes_by_score_then_by_digest_not_by_order() -> None:
    rows = [completion(f"question {number}", "x") for number in range(9)]
    columns, reverse = columns_of(rows), columns_of(rows[::-1])
    scores = np.array([0.5] * 8 + [0.9])
    ranked = columns.rank(np.arange(9), scores)
    assert ranked.positions[0] == 8
    assert ranked.scores.tolist() == [0.9] + [0.5] * 8
    others = reverse.rank(np.arange(9), scores[::-1]).positions
    assert [8 - position for position in others] == ranked.positions.tolist()


def test_rank_counts_rows_that_it_does_not_list() -> None:
    columns = columns_of([completion(f"question {number}", "x") for number in range(MAX_FLAGGED + 1)])
    ranked = columns.rank(np.arange(MAX_FLAGGED + 1))
    assert (len(ranked.positions), ranked.count) == (MAX_FLAGGED, MAX_FLAGGED + 1)


def test_judged_answers_are_a_task_of_good_and_bad() -> None:
    rows = [completion(f"question {number}", "an answer", label=number % 2 == 0) for number in range(20)]
    task = columns_of(rows, "kto").class_task
    assert task
    assert task.names == ["bad", "good"]
    assert sorted(task.labels.tolist()) == [0] * 10 + [1] * 10


def test_classes_are_a_task_named_by_their_answers() -> None:
    rows = [completion(f"question {number}", ("Yes", "no")[number % 3 == 0]) for number in range(60)]
    task = columns_of(rows).class_task
    assert task
    assert sorted(task.names) == ["Yes", "no"]


def test_free_answers_are_no_task() -> None:
    rows = [completion(f"question {number}", f"a free answer {number}") for number in range(60)]
    assert columns_of(rows).class_task is None
