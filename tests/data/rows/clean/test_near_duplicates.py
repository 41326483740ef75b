"""Near duplicates: planted ones are found, rows of one template are kept, removals can be verified."""

import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows.planted_rows import EDITS, Edit, Row, Writer, edited, records_of

from tunesmith_data.rows.clean.boilerplate import Boilerplate
from tunesmith_data.rows.clean.compared_text import normalize, numbers, row_parts
from tunesmith_data.rows.clean.minhash_signatures import SLOTS, Bands, sign
from tunesmith_data.rows.clean.near_duplicates import NearCluster, NearDuplicates
from tunesmith_data.rows.clean.text_similarity import ComparableRow, differs_by_typos

QUICKSTART = Path(__file__).parents[4] / "examples/quickstart/data"
LONG = "The river rises in the hills behind the old town and flows past the mill to the sea every spring."


def clusters_of(rows: Sequence[Row], threshold: float = 0.8, batch: int = 100) -> tuple[NearCluster, ...]:
    """The clusters of rows that are seen in batches."""
    records = records_of(rows)
    near = NearDuplicates(threshold)
    for begin in range(0, len(records), batch):
        near.update(records[begin : begin + batch])
    return near.clusters(lambda indexes: [records[index] for index in indexes])


def removed_from(rows: Sequence[Row], threshold: float = 0.8) -> list[int]:
    """The indexes of rows that are to be removed."""
    return sorted(each.index for cluster in clusters_of(rows, threshold) for each in cluster.removed)


def asked(prompt: str, completion: str) -> Row:
    return {"prompt": prompt, "completion": completion}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_edited_copies_are_found_and_nothing_else(edit: Edit) -> None:
    writer = Writer(11)
    rows = [writer.row() for _ in range(600)]
    copies = [edited(writer, row, (edit,)) for row in rows[:200]]
    removed = removed_from(rows + copies)
    assert all(index >= 600 for index in removed)
    assert len(removed) >= 0.95 * 200


def test_the_same_rows_are_found_with_similarity_one() -> None:
    rows = [Writer(12).row() for _ in range(3)]
    [cluster] = clusters_of([rows[0], rows[0] | {"prompt": rows[0]["prompt"].upper()}])
    assert (cluster.kept, [(each.index, each.similarity) for each in cluster.removed]) == (0, [(1, 1.0)])


def test_quickstart_rows_are_all_different_examples() -> None:
    rows = [json.loads(line) for line in (QUICKSTART / "train.jsonl").read_text().splitlines()]
    assert removed_from(rows) == []


def template_rows(kind: str, count: int = 1500) -> list[Row]:
    """Rows of a template, no two the same."""
    writer = Writer(13)
    names, things = writer.words(60), writer.words(60)
    instruction = writer.text(100, 100)
    choose = writer.random.choice
    made: dict[str, Callable[[], Row]] = {
        "amounts": lambda: asked(
            f"Write the record: {choose(names)} paid {writer.random.random():.6f}", "done"
        ),
        "names": lambda: asked(
            "Please note for the report of this month that "
            + choose(names)
            + " has paid for "
            + choose(things),
            json.dumps({"who": choose(names), "what": choose(things), "status": "it is written down"}),
        ),
        "labels": lambda: asked(f"{instruction} Text: {writer.text(3, 12)}", choose(["good", "bad"])),
        "answers": lambda: asked(instruction, writer.text(12, 60)),
        "prompts": lambda: {
            "prompt": f"Write a poem about {choose(names)} in the style of {choose(things)}, with rhymes in each line"
        },
    }
    rows = (made[kind]() for _ in range(count))
    return list({json.dumps(row): row for row in rows}.values())


@pytest.mark.parametrize("kind", ["amounts", "names", "labels", "answers", "prompts"])
def test_rows_of_a_template_are_different_examples(kind: str) -> None:
    rows = template_rows(kind)
    assert len(removed_from(rows)) < 0.01 * len(rows)


def test_copies_among_rows_of_a_template_are_found() -> None:
    rows = template_rows("labels", 400)
    assert removed_from(rows + rows[:100]) == list(range(len(rows), len(rows) + 100))


def test_many_mistyped_copies_of_a_long_row_leave_one() -> None:
    writer = Writer(14)
    row = {"prompt": writer.text(90, 90), "completion": writer.text(120, 120)}
    rows = [row, *(edited(writer, row, EDITS[:1]) for _ in range(300))]
    assert len(removed_from(rows)) >= 0.95 * 300


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asked(f"{LONG} How many?", "12"), asked(f"{LONG} How many?", "13")),
        (asked(f"{LONG} Is it so?", "Yes."), asked(f"{LONG} Is it so?", "No.")),
        (asked(f"{LONG} In 1980?", "yes"), asked(f"{LONG} In 1981?", "yes")),
        (asked(f"{LONG} {LONG} It costs -5 EUR.", LONG), asked(f"{LONG} {LONG} It costs 5 EUR.", LONG)),
        (asked(f"{LONG} Is it C++?", LONG), asked(f"{LONG} Is it C#?", "Another answer.")),
        (asked("print(a + b)", "sum"), asked("print(a * b)", "sum")),
        ({"text": f"{LONG} Page 3"}, {"text": f"{LONG} Page 4"}),
        (
            {"prompt": LONG, "completion": LONG, "label": True},
            {"prompt": LONG, "completion": LONG, "label": False},
        ),
        (
            {"prompt": LONG, "chosen": LONG, "rejected": "Never."},
            {"prompt": LONG, "chosen": LONG, "rejected": "Sometimes, if it rains."},
        ),
    ],
)
def test_a_number_a_sign_or_a_short_answer_makes_the_difference(one: Row, other: Row) -> None:
    assert removed_from([one, other]) == []


def test_the_systems_message_and_calls_of_tools_make_the_difference() -> None:
    def chat(system: str, city: str) -> Row:
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        return {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": LONG}, answer]
        }

    assert (
        removed_from([chat("Be brief.", "Rome"), chat("Be long.", "Rome"), chat("Be brief.", "Oslo")]) == []
    )
    assert removed_from([chat("Be brief.", "Rome"), chat("Be brief.", "Rome")]) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "河流从老城后面的山丘升起，每年春天流过磨坊，最后流入大海。镇上的人们喜欢在河边散步，孩子们在水里玩耍。",  # noqa: RUF001
        "Река поднимается в холмах за старым городом и каждую весну течёт мимо мельницы к морю.",
        "def area(width, height):\n    total = width * height\n    return round(total, digits)\n",
    ],
    ids=["chinese", "russian", "code"],
)
def test_other_scripts_are_compared_too(text: str) -> None:
    place = len(text) // 2
    rows = [{"text": text}, {"text": text[:place] + text[place + 1 :]}, {"text": text[::-1]}]
    assert removed_from(rows) == [1]


def test_likeness_is_not_passed_on() -> None:
    """Each of these is like its neighbors, the first is unlike the last."""
    writer = Writer(15)
    words = writer.words(90)
    rows = []
    for _ in range(12):
        words = [*words[4:], *writer.words(4)]
        rows.append({"text": " ".join(words)})
    clusters = clusters_of(rows)
    assert len(clusters) > 1
    assert_verified(rows, clusters, 0.8)


def assert_verified(rows: Sequence[Row], clusters: Sequence[NearCluster], threshold: float) -> None:
    """Each row that is removed is as alike to the kept one as is said, and that one is kept."""
    removed = {each.index for cluster in clusters for each in cluster.removed}
    for cluster in clusters:
        assert cluster.kept not in removed
        for each in cluster.removed:
            assert cluster.kept < each.index
            assert each.similarity >= threshold
            assert each.similarity == pytest.approx(least_jaccard(rows[cluster.kept], rows[each.index]))


def least_jaccard(one: Row, other: Row) -> float:
    """The similarity of the least similar part, counted with sets."""

    def shingles(text: bytes) -> set[bytes]:
        return {text[place : place + 5] for place in range(max(1, len(text) - 4))}

    pairs = zip(row_parts(one).texts, row_parts(other).texts, strict=True)
    sets = [(shingles(mine), shingles(theirs)) for mine, theirs in pairs]
    return min(len(mine & theirs) / len(mine | theirs) for mine, theirs in sets)


@settings(max_examples=cases(20, 400))
@given(st.integers(0, 2**32), st.sampled_from([0.6, 0.8, 0.95]))
def test_what_is_removed_can_be_checked_and_nothing_more_is_found_in_the_rest(
    seed: int, threshold: float
) -> None:
    writer = Writer(seed)
    rows = [writer.row() for _ in range(30)]
    rows += [edited(writer, row) for row in rows[:20]]
    clusters = clusters_of(rows, threshold)
    assert_verified(rows, clusters, threshold)
    removed = {each.index for cluster in clusters for each in cluster.removed}
    assert removed_from([row for index, row in enumerate(rows) if index not in removed], threshold) == []
    assert clusters_of(rows, threshold, batch=7) == clusters


@settings(max_examples=cases(10, 200))
@given(st.integers(0, 2**32))
def test_the_order_of_rows_does_not_change_which_belong_together(seed: int) -> None:
    writer = Writer(seed)
    rows = [writer.row() for _ in range(30)]
    rows += [edited(writer, row, EDITS[:4]) for row in rows[:15]]
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)

    def groups(clusters: Sequence[NearCluster], names: Sequence[int]) -> set[frozenset[int]]:
        return {
            frozenset(names[index] for index in (each.kept, *(row.index for row in each.removed)))
            for each in clusters
        }

    shuffled = clusters_of([rows[place] for place in order])
    assert groups(shuffled, order) == groups(clusters_of(rows), range(len(rows)))


@given(st.lists(st.fixed_dictionaries({"prompt": st.text(), "completion": st.text()}), max_size=12))
def test_any_text_can_be_compared(rows: list[Row]) -> None:
    removed = set(removed_from(rows))
    contents = [row_parts(row) for row in rows]
    for index, parts in enumerate(contents):
        assert (parts in contents[:index]) <= (index in removed)


def test_records_may_have_any_indexes() -> None:
    records = [record for record in records_of([{"text": LONG}] * 8) if record.index in (2, 5, 7)]
    near = NearDuplicates()
    near.update(records)
    by_index = {record.index: record for record in records}
    [cluster] = near.clusters(lambda indexes: [by_index[index] for index in indexes])
    assert (cluster.kept, [each.index for each in cluster.removed]) == (2, [5, 7])


def test_nothing_is_found_in_nothing() -> None:
    assert clusters_of([]) == ()


def test_text_is_normalised() -> None:
    assert normalize("  Ｆｕｌｌ width,\t“Quoted” -- CASE! ") == b"full width quoted case"  # noqa: RUF001
    assert normalize("C++ and C#: a+b") == b"c + + and c # a + b"
    assert numbers("from 2010-2020, -5 °C and 1.5") == ["-5", "1", "2010", "2020", "5"]


@pytest.mark.parametrize(
    ("one", "other", "slips"),
    [
        ("the river rises", "the rivre rises", True),
        ("the river rises", "the rver rises", True),
        ("the river rises", "the xiver rises", True),
        ("the river rises", "the rivers rises", True),
        ("the river rises", "the brook rises", False),
        ("the cat sits", "the rat sits", False),
        ("the river rises", "the river rises again", False),
        ("prices increase", "prices decrease", False),
    ],
)
def test_slips_of_the_pen_are_told_from_other_words(one: str, other: str, slips: bool) -> None:
    assert differs_by_typos(one, other) is slips


def test_bands_bring_rows_at_the_threshold_together() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        bands = Bands.for_threshold(threshold)
        assert bands.width * bands.count <= SLOTS
        assert 1 - (1 - threshold**bands.width) ** bands.count >= 0.995


def test_signatures_estimate_similarity() -> None:
    writer = Writer(16)
    rows = [writer.row() for _ in range(200)]
    copies = [edited(writer, row) for row in rows]
    ours, theirs = (sign([row_parts(row) for row in each], 3) for each in (rows, copies))
    one, other = ([ComparableRow(row_parts(row), Boilerplate()) for row in each] for each in (rows, copies))
    exact = [mine.similarity(its, 0.0) for mine, its in zip(one, other, strict=True)]
    assert None not in exact
    estimated = np.mean(ours == theirs, axis=1)
    # Of the whole row, while the exact one is that of the least similar part: never much below it.
    assert np.all(estimated >= np.array(exact, dtype=float) - 0.2)
    assert np.array_equal(ours, sign([row_parts(row) for row in rows], 3))
    assert not np.array_equal(ours, sign([row_parts(row) for row in rows], 4))


def test_no_row_is_held() -> None:
    writer = Writer(17)
    rows = [{"text": writer.text(400, 400)} for _ in range(500)]
    near = NearDuplicates()
    tracemalloc.start()
    try:
        for _ in range(8):
            near.update(records_of(rows))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Room for 65,536 rows of 128 bytes, made at once; the texts of the 4,000 rows are more than that again.
    assert held < 65_536 * 128 + 500_000 < 4_000 * len(rows[0]["text"])
