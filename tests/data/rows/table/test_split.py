"""Split: stable sides, groups that stay together, shares of strata, counts that add up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows.stored_rows import divide, fill, store_rows

from tunesmith_contract.run_config import ValidationSource
from tunesmith_data.rows.table.parquet import read_rows
from tunesmith_data.rows.table.record import RowSide
from tunesmith_data.rows.table.row_store import RowStore
from tunesmith_data.rows.table.split import dataset_digest

Rows = list[dict[str, Any]]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
rows_strategy = st.lists(
    st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion}, texts, texts),
    max_size=30,
)
grouped_rows = st.lists(
    st.builds(
        lambda prompt, group: {"prompt": prompt, "completion": "x", "group": group},
        texts,
        st.sampled_from("abcde"),
    ),
    max_size=30,
)


Folders = Callable[[], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return lambda: tmp_path_factory.mktemp("store")


def contents(store: RowStore, indexes: list[int]) -> set[tuple[str, str]]:
    return {(record.row["prompt"], record.row["completion"]) for record in store.take(indexes)}


@given(rows_strategy)
def test_parquet_keeps_any_text(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    store_rows(path, rows)
    assert read_rows(path) == rows


@given(rows_strategy)
def test_a_store_gives_back_what_it_was_given_in_any_order(folders: Folders, rows: Rows) -> None:
    with fill(folders(), rows) as store:
        assert [record.row for batch in store.batches() for record in batch] == rows
        backwards = list(range(len(rows)))[::-1]
        assert [record.row for record in store.take(backwards)] == rows[::-1]
        assert [record.line for record in store.take(backwards)] == [index + 1 for index in backwards]


@given(rows_strategy, rows_strategy, st.booleans(), st.integers(0, 3), st.floats(0, 0.9))
def test_sides_add_up_and_a_row_never_straddles(
    folders: Folders, train: Rows, held_out: Rows, deduplicate: bool, seed: int, fraction: float
) -> None:
    for own in ([], held_out):
        source = ValidationSource(fraction=0.0 if own else fraction)
        with fill(folders(), train, held_out=own) as store:
            sides = divide(store, source, seed=seed, deduplicate=deduplicate)
            assert sorted(index for side in sides.values() for index in side) == list(range(len(store)))
            learned, validated = (
                contents(store, sides[side]) for side in (RowSide.TRAIN, RowSide.VALIDATION)
            )
            assert learned.isdisjoint(validated)
            if deduplicate:
                assert len(learned) == len(sides[RowSide.TRAIN])
                every = {(row["prompt"], row["completion"]) for row in [*train, *own]}
                assert learned | validated == every


@given(grouped_rows, grouped_rows, st.booleans(), st.randoms(use_true_random=False))
def test_a_row_stays_on_its_side_when_rows_move_or_come(
    folders: Folders, rows: Rows, more: Rows, grouped: bool, chance: Any
) -> None:
    fields: dict[str, Any] = {"group": "group"} if grouped else {"stratum": "group"}
    if grouped:
        # What is in two groups goes with one of them: a new row may bring another group.
        more = [row | {"prompt": f"new {row['prompt']}"} for row in more]
    source = ValidationSource(fraction=0.3, group_field="group" if grouped else None)
    grown = [*rows, *more]
    chance.shuffle(grown)
    with fill(folders(), rows, **fields) as before, fill(folders(), grown, **fields) as after:
        old, new = (divide(store, source, seed=5) for store in (before, after))
        for side in (RowSide.TRAIN, RowSide.VALIDATION):
            assert contents(before, old[side]) <= contents(after, new[side])


@given(grouped_rows, st.integers(0, 9), st.booleans())
def test_groups_stay_together(folders: Folders, rows: Rows, seed: int, stratified: bool) -> None:
    rows = [row | {"kind": row["prompt"][0]} for row in rows]
    fields: dict[str, Any] = {"group": "group", "stratum": "kind"}
    source = ValidationSource(
        fraction=0.5, group_field="group", stratify_field="kind" if stratified else None
    )
    with fill(folders(), rows, **fields) as store:
        sides = divide(store, source, seed=seed)
        groups = [
            {record.group for record in store.take(sides[side])}
            for side in (RowSide.TRAIN, RowSide.VALIDATION)
        ]
        assert groups[0].isdisjoint(groups[1])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.sampled_from([0.1, 0.25, 0.5]))
@settings(max_examples=cases(40, 800))
def test_each_stratum_holds_out_its_share(folders: Folders, sizes: list[int], fraction: float) -> None:
    rows = [
        {"prompt": f"{stratum} {number}", "completion": "x", "label": str(stratum)}
        for stratum, size in enumerate(sizes)
        for number in range(size)
    ]
    source = ValidationSource(fraction=fraction, stratify_field="label")
    with fill(folders(), rows, stratum="label") as store:
        held_out = store.take(divide(store, source, seed=1)[RowSide.VALIDATION])
        for stratum, size in enumerate(sizes):
            count = sum(record.stratum == str(stratum) for record in held_out)
            assert count == int(size * fraction + 0.5)


def test_strata_that_grow_move_few_rows(folders: Folders) -> None:
    rows = [{"prompt": str(number), "completion": "x", "label": "a"} for number in range(1100)]
    source = ValidationSource(fraction=0.2, stratify_field="label")
    with (
        fill(folders(), rows[:1000], stratum="label") as before,
        fill(folders(), rows, stratum="label") as after,
    ):
        old, new = (set(divide(store, source, seed=1)[RowSide.VALIDATION]) for store in (before, after))
        assert len(old) == 200
        assert len(old - new) <= 30


def test_split_holds_out_about_the_fraction_and_another_seed_others(folders: Folders) -> None:
    rows = [{"prompt": str(number), "completion": "x"} for number in range(2000)]
    source = ValidationSource(fraction=0.1)
    with fill(folders(), rows) as store:
        first, second, again = (
            set(divide(store, source, seed=seed)[RowSide.VALIDATION]) for seed in (1, 2, 1)
        )
    assert 140 < len(first) < 260
    assert first == again != second


def test_the_digest_is_of_contents_sides_and_order() -> None:
    digests = [bytes([number]) * 32 for number in range(3)]
    assert dataset_digest(digests[:2], digests[2:]) == dataset_digest(digests[:2], digests[2:])
    others = {dataset_digest(digests[:1], digests[1:]), dataset_digest(digests[1::-1], digests[2:])}
    assert dataset_digest(digests[:2], digests[2:]) not in others


def test_rows_lie_on_disk_not_in_memory(folders: Folders) -> None:
    folder: Path = folders()
    rows = ({"prompt": f"{number} {'x' * 1000}", "completion": "y"} for number in range(5000))
    with fill(folder, rows) as store:
        assert store.size_bytes > 5_000_000
        (record,) = store.take([4321])
        assert record.row["prompt"].startswith("4321 ")
        assert sum(file.stat().st_size for file in folder.iterdir()) >= store.size_bytes


def test_long_rows_come_few_at_a_time(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith_data.rows.table.row_store.BATCH_BYTES", 1000)
    lengths = [10] * 40 + [3000, 10, 10, 900, 900, 10]
    with fill(folders(), [{"text": "x" * length} for length in lengths]) as store:
        batches = [[len(record.row["text"]) for record in batch] for batch in store.batches()]
    assert [length for batch in batches for length in batch] == lengths
    assert all(len(batch) == 1 or sum(batch) <= 1000 for batch in batches)
    assert len(batches) < 9
