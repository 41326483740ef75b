"""Overlap of training rows with held-out rows: equal, nearly equal or quoted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows.planted_rows import EDITS, Row, Writer, edited, records_of

from tunesmith_data.rows.clean.held_out_overlap import HeldOutOverlap, HeldOutSet, LeakedRow

QUICKSTART = Path(__file__).parents[4] / "examples/quickstart/data"


def leaks_of(
    train: Sequence[Row], held_out: Mapping[str, Sequence[Row]], batch: int = 100
) -> list[LeakedRow]:
    """The leaks of training rows that are seen in batches."""
    records = records_of(train)
    sets = [HeldOutSet(name, records_of(rows, f"{name}.jsonl")) for name, rows in held_out.items()]
    overlap = HeldOutOverlap(sets)
    for begin in range(0, len(records), batch):
        overlap.update(records[begin : begin + batch])
    return list(overlap.leaks(lambda indexes: [records[index] for index in indexes]))


def kinds(leaks: Sequence[LeakedRow]) -> list[tuple[int, str]]:
    return [(leaked.index, leaked.leak.kind) for leaked in leaks]


def quoted(writer: Writer, text: str) -> Row:
    """A long row that holds a text somewhere."""
    return {
        "prompt": writer.text(5, 20),
        "completion": f"{writer.text(100, 300)} {text} {writer.text(100, 300)}",
    }


def test_planted_leaks_are_found_and_nothing_else() -> None:
    writer = Writer(21)
    items = [writer.row() for _ in range(400)]
    train = [writer.row() for _ in range(1500)]
    leaks: list[tuple[str, Row]] = []
    for item in items[:50]:
        leaks.append(("exact", item))
        leaks.append(("exact", item | {"completion": writer.text(20, 60)}))
        for edit in EDITS:
            question = edited(writer, item, (edit,))["prompt"]
            leaks.append(("edited", {"prompt": question, "completion": writer.text(20, 60)}))
        leaks.append(("passage", quoted(writer, item["prompt"])))
    found = dict(kinds(leaks_of(train + [row for _, row in leaks], {"test": items})))
    assert not [index for index in found if index < len(train)]
    assert len(found) >= 0.95 * len(leaks)
    for index, (kind, _) in enumerate(leaks, start=len(train)):
        assert found.get(index, kind) == kind or kind == "edited"


def test_a_leak_names_both_places() -> None:
    writer = Writer(22)
    item, other = writer.row(), writer.row()
    [leaked] = leaks_of([other, item], {"validation": [writer.row(), item]})
    leak = leaked.leak
    assert leaked.index == 1
    assert (str(leak.row), leak.held_out, str(leak.other)) == (
        "train.jsonl:2",
        "validation",
        "validation.jsonl:2",
    )
    assert (leak.kind, leak.similarity) == ("exact", 1.0)
    assert leak.excerpt == leak.other_excerpt != ""


def test_a_row_leaks_from_each_set_once() -> None:
    writer = Writer(23)
    item = writer.row()
    found = leaks_of([item], {"one": [item, item], "two": [item], "three": [writer.row()]})
    assert [leaked.leak.held_out for leaked in found] == ["one", "two"]


def test_the_item_with_the_same_answer_is_named() -> None:
    row = {"prompt": "Which river is the longest of all?", "completion": "the Nile"}
    [leaked] = leaks_of([row], {"test": [row | {"completion": "the Amazon"}, row]})
    assert leaked.leak.other.line == 2


def test_quickstart_holds_out_what_it_evaluates() -> None:
    train, test = (
        [json.loads(line) for line in (QUICKSTART / name).read_text().splitlines()]
        for name in ("train.jsonl", "test.jsonl")
    )
    assert leaks_of(train, {"test": test}) == []


def test_numbers_make_another_question() -> None:
    writer = Writer(24)
    story = writer.text(60, 60)
    item = {"prompt": f"{story} How many are 12 and 30?", "answer": "42"}
    same, other = item["prompt"].upper(), item["prompt"].replace("12", "13")
    found = leaks_of(
        [{"prompt": other, "completion": "43"}, {"prompt": same, "completion": "42"}], {"test": [item]}
    )
    assert (1, "exact") in kinds(found)
    assert (0, "near") not in kinds(found)


@pytest.mark.parametrize("held_out", [1, 300])
def test_an_instruction_that_all_rows_share_is_no_leak(held_out: int) -> None:
    writer = Writer(25)
    instruction = writer.text(100, 100)
    rows = [
        {
            "prompt": f"{instruction} Text: {writer.text(6, 14)}",
            "completion": writer.random.choice(["good", "bad"]),
        }
        for _ in range(2000)
    ]
    assert len(leaks_of(rows[held_out:], {"test": rows[:held_out]})) < 0.01 * len(rows)


def test_a_question_that_all_rows_ask_leaks_with_its_answer_only() -> None:
    writer = Writer(26)
    rows = [{"prompt": "Write a product description.", "completion": writer.text(20, 60)} for _ in range(500)]
    assert kinds(leaks_of(rows[5:] + rows[:2], {"test": rows[:5]})) == [(495, "exact"), (496, "exact")]


def test_all_kinds_of_rows_are_looked_through() -> None:
    writer = Writer(27)
    question = writer.text(30, 40)
    chat = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]}
    longer = {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": writer.text(5, 9)},
            {"role": "assistant", "content": "Perhaps."},
        ]
    }
    train: list[Row] = [
        chat,
        {"prompt": question, "chosen": "Yes, of course.", "rejected": "No."},
        {"prompt": question},
        {"text": f"{writer.text(300, 400)} {question} {writer.text(300, 400)}"},
        {"prompt": writer.text(5, 9), "chosen": "It is so.", "rejected": f"{writer.text(90, 99)} {question}"},
        longer,
    ]
    exact, passage = [(index, "exact") for index in (0, 1, 2)], [(index, "passage") for index in (3, 4, 5)]
    assert kinds(leaks_of(train, {"test": [chat]})) == exact + passage


def test_chinese_is_found_in_a_longer_text() -> None:
    question = "河流从老城后面的山丘升起，每年春天流过磨坊，最后流入大海。请问这条河流经过哪些地方？"  # noqa: RUF001
    train = [{"text": f"今天我们谈谈别的事情。{question}答案在书里。" + "天气很好。" * 30}]
    assert kinds(leaks_of(train, {"test": [{"prompt": question, "answer": "磨坊"}]})) == [(0, "passage")]


def test_half_a_question_is_no_leak() -> None:
    writer = Writer(28)
    item = writer.row()
    half = " ".join(item["prompt"].split()[: len(item["prompt"].split()) // 2])
    assert leaks_of([quoted(writer, half)], {"test": [item]}) == []


@settings(max_examples=cases(15, 300))
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_how_rows_are_batched_changes_nothing(seed: int, batch: int) -> None:
    writer = Writer(seed)
    items = [writer.row() for _ in range(20)]
    train = [writer.row() for _ in range(20)] + [edited(writer, item) for item in items[:10]]
    assert leaks_of(train, {"test": items}, batch) == leaks_of(train, {"test": items})


def test_without_held_out_rows_nothing_leaks() -> None:
    row = Writer(29).row()
    assert leaks_of([row], {}) == []
    assert leaks_of([row], {"test": []}) == []
    assert leaks_of([], {"test": [row]}) == []


def test_all_items_of_a_question_that_training_has_are_leaked() -> None:
    writer = Writer(31)
    items = [writer.row() for _ in range(20)]
    same = [items[3] | {"completion": "another answer"}, items[5]]
    near = [edited(writer, items[7], EDITS[:1])]
    train = [
        writer.row(),
        items[3],
        items[5] | {"completion": "x"},
        *near,
        quoted(writer, items[9]["prompt"]),
    ]
    overlap = HeldOutOverlap(
        [HeldOutSet("one", records_of(items)), HeldOutSet("two", records_of(same, "two.jsonl"))]
    )
    overlap.update(records_of(train))
    found = {(leak.held_out, leak.index): (leak.match.kind, leak.row) for leak in overlap.leaked_items()}
    assert found.pop(("one", 7))[1] == 3
    assert found == {
        ("one", 3): ("exact", 1),
        ("two", 0): ("exact", 1),
        ("one", 5): ("exact", 2),
        ("two", 1): ("exact", 2),
        ("one", 9): ("passage", 4),
    }
