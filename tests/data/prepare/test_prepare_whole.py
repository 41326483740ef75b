"""Prepare stage on planted faults: issues by name, rows on the right side, counts that add up."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from long_form import cases
from rows import planted_faults
from rows.planted_rows import Writer
from stages.stage_world import RowBuilders, World

from tunesmith_contract.report import DatasetReport
from tunesmith_data.failures import DataError
from tunesmith_data.prepare import load_prepared
from tunesmith_data.prepare.prepared_rows import rows_of
from tunesmith_data.rows.page.report_files import read_report
from tunesmith_data.rows.report.data_report import DataReport
from tunesmith_data.rows.table.record import RowSide

Rows = list[dict[str, Any]]

LONG = {"sft": {"maxLength": 2048}}

ASKED_TWICE = "How do I oil the hinge of the garden gate before the first frost of the year comes?"
ANSWERED_TWICE = (
    "On a dry day you wipe the old grease off, then you put three drops of oil on each of the hinges."
)
LEAKED = "What do I put on a deep scratch in the top of an oak table that stands in the sun all day?"
OWNED = "Write to anna.bolt@example.org before you come for the ladder."


def report_of(world: World, uid: str = "uid") -> DataReport:
    return read_report(world.output / f"ns/{uid}/data-report")


def every_fault() -> tuple[Rows, dict[str, set[int]]]:
    """A clean corpus with each kind of fault planted once or more, and the lines of each."""
    rows = planted_faults.chat_rows(400)
    lines: dict[str, set[int]] = {}

    def plant(check: str, *faulty: dict[str, Any]) -> None:
        lines[check] = set(range(len(rows) + 1, len(rows) + 1 + len(faulty)))
        rows.extend(faulty)

    chat = planted_faults.chat_row
    plant("unrecognized_role", {"messages": [{"role": "bot", "content": "x"}]})
    plant(
        "missing_content",
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
    )
    plant("duplicate", rows[0])
    plant(
        "near_duplicates",
        chat(ASKED_TWICE, ANSWERED_TWICE),
        chat(f"Say, {ASKED_TWICE}", ANSWERED_TWICE),
    )
    plant("leaked_rows", chat(LEAKED, "Rub it with the half of a walnut, and wait for an hour."))
    plant("personal_data", chat("Whom do I ask for the long ladder of the club in spring?", OWNED))
    refusal = "I'm sorry, but as an AI language model I can't help with that."
    plant("refusal_answer", chat("Which saw do I take for the wet plank of larch behind the shed?", refusal))
    return rows, lines


def test_each_planted_fault_is_found_by_its_name_and_nothing_else(world: World) -> None:
    rows, lines = every_fault()
    exam = [planted_faults.chat_row(LEAKED, "Sand it, and oil it twice.")]
    report = world.prepare(
        world.prepare_config(
            world.write_rows("train.jsonl", rows),
            onInvalidRow="Drop",
            maxInvalidFraction=0.05,
            heldOut=[{"name": "exam", "uri": world.write_rows("exam.jsonl", exam)}],
            validation={"fraction": 0},
            method=LONG,
        )
    )
    found = report_of(world)
    assert {issue.check: {each.place.line for each in issue.examples} for issue in found.issues} == {
        "invalid_rows": lines["unrecognized_role"] | lines["missing_content"],
        "near_duplicates": {max(lines["near_duplicates"])},
        "leaked_rows": lines["leaked_rows"],
        "personal_data": lines["personal_data"],
        "refusal_answer": lines["refusal_answer"],
    }
    assert [(leak.kind, leak.held_out, leak.other.file) for leak in found.leaks] == [
        ("exact", "exam", "exam.jsonl")
    ]
    dataset = report.dataset
    assert (dataset.duplicates, dataset.near_duplicates, dataset.leaked_rows, dataset.dropped_rows) == (
        1,
        0,
        1,
        2,
    )
    assert {check for check, _ in dataset.issues} == {"leaked_rows", "personal_data", "refusal_answer"}
    assert dataset.page == "pvc://out/ns/uid/data-report/report.html"


def prepare_with_exam(
    world: World, validation: Rows, exam: Rows, train: Rows
) -> tuple[DatasetReport, DataReport]:
    """What prepare says of rows, a validation set of its own, and a suite named exam."""
    config = world.prepare_config(
        world.write_rows("train.jsonl", train),
        validation={"uri": world.write_rows("validation.jsonl", validation)},
        heldOut=[{"name": "exam", "uri": world.write_rows("exam.jsonl", exam)}],
        method=LONG,
    )
    return world.prepare(config).dataset, report_of(world)


def validation_leaks(report: DataReport) -> list[tuple[str, str, str, bool]]:
    """Row, item, kind and whether the row stays, of each leak of the validation set."""
    return [
        (str(leak.row), str(leak.other), leak.kind, leak.kept)
        for leak in report.leaks
        if leak.side is RowSide.VALIDATION
    ]


def test_validation_rows_that_a_suite_holds_are_left_out_and_named_on_both_sides(world: World) -> None:
    rows = planted_faults.chat_rows(120)
    chat = planted_faults.chat_row
    exam = [chat(LEAKED, "Sand it."), chat(ASKED_TWICE, ANSWERED_TWICE), chat(OWNED, "I will write.")]
    leaked = [
        chat(LEAKED, "Rub it with the half of a walnut."),
        chat(f"Say, {ASKED_TWICE}", ANSWERED_TWICE),
        chat(f"{LEAKED[:30]}?", f"{Writer(3).text(60, 80)} {OWNED} {Writer(4).text(60, 80)}"),
    ]
    dataset, report = prepare_with_exam(world, [*rows[:20], *leaked], exam, rows[20:])
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (100, 20, 3)
    assert validation_leaks(report) == [
        ("validation.jsonl:21", "exam.jsonl:1", "exact", False),
        ("validation.jsonl:22", "exam.jsonl:2", "near", False),
        ("validation.jsonl:23", "exam.jsonl:3", "passage", False),
    ]
    issue = next(issue for issue in report.issues if issue.check == "leaked_validation_rows")
    assert (issue.rows, [each.place.line for each in issue.examples]) == (3, [21, 22, 23])
    assert "exam" in issue.message
    assert ("leaked_validation_rows", 3) in dataset.issues
    assert "leaked_rows" not in {issue.check for issue in report.issues}
    split = load_prepared(world.output / "ns/uid/prepared", dataset.digest)
    assert list(split.validation) == rows[:20]


def test_a_validation_set_that_is_the_suite_stays_with_a_warning(world: World) -> None:
    rows = planted_faults.chat_rows(120)
    dataset, report = prepare_with_exam(world, rows[:20], rows[:19], rows[18:])
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (100, 20, 2)
    assert len(validation_leaks(report)) == 19
    assert all(kept for *_, kept in validation_leaks(report))
    found = {issue.check: issue.rows for issue in report.issues}
    assert found == {"leaked_rows": 2, "validation_is_evaluated": 19}
    assert any("19 validation rows, most of them, are also in exam" in each for each in dataset.warnings)
    page = (world.output / "ns/uid/data-report/report.html").read_text()
    assert "<b>kept</b>" in page


def test_half_of_a_validation_set_may_go(world: World) -> None:
    rows = planted_faults.chat_rows(120)
    dataset, _ = prepare_with_exam(world, rows[:20], rows[:10], rows[20:])
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (100, 10, 10)


def test_a_validation_set_of_its_own_that_is_clean_loses_nothing(world: World) -> None:
    rows = planted_faults.chat_rows(160)
    dataset, report = prepare_with_exam(world, rows[:20], rows[20:40], rows[40:])
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (120, 20, 0)
    assert (report.leaks, report.issues) == ((), ())


def test_an_instruction_that_training_shares_is_no_leak_of_validation(world: World) -> None:
    writer = Writer(11)
    rows = [planted_faults.chat_row("Write a product description.", writer.text(20, 60)) for _ in range(120)]
    dataset, report = prepare_with_exam(world, rows[:20], [*rows[20:30], *rows[:2]], rows[30:])
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (90, 18, 2)
    assert [row for row, *_ in validation_leaks(report)] == ["validation.jsonl:1", "validation.jsonl:2"]


@given(st.lists(st.sampled_from("tve"), min_size=3, max_size=40), st.data())
@settings(max_examples=cases(15, 300), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_add_up_whatever_sets_share(
    world: World, make: RowBuilders, first: list[str], data: Any
) -> None:
    """Each row is of one set, and may be of others, too."""
    also = data.draw(st.lists(st.sampled_from(["", "t", "v", "e"]), min_size=len(first), max_size=len(first)))
    sets: dict[str, list[Any]] = {name: [] for name in "tve"}
    for row, *names in zip(make.rows(len(first), seed=5), first, also, strict=True):
        for name in set(filter(None, names)):
            sets[name].append(row)
    if not all(sets.values()):
        return
    train, validation, exam = (
        world.write_rows(f"{name}{len(rows)}.jsonl", rows) for name, rows in sets.items()
    )
    config = world.prepare_config(
        train,
        uid=f"s{abs(hash((tuple(first), tuple(also))))}",
        validation={"uri": validation},
        heldOut=[{"name": "exam", "uri": exam}],
    )
    dataset = dataset_of(world, config)
    if dataset is None:
        return
    assert dataset.rows == len(sets["t"]) + len(sets["v"])
    assert dataset.rows == dataset.train_rows + dataset.validation_rows + dataset.leaked_rows
    assert dataset.validation_rows >= len(sets["v"]) / 2
    split = load_prepared(world.output / f"ns/{config.owner.uid}/prepared", dataset.digest)
    assert not [row for row in split.train if row in sets["e"] or row in split.validation]
    if dataset.validation_rows < len(sets["v"]):
        assert not [row for row in split.validation if row in sets["e"]]


def test_near_repetitions_go_where_that_is_asked_for(world: World) -> None:
    rows, lines = every_fault()
    rows = [
        row
        for number, row in enumerate(rows, start=1)
        if number not in lines["unrecognized_role"] | lines["missing_content"]
    ]
    config = world.prepare_config(
        world.write_rows("t.jsonl", rows), deduplicate="Near", validation={"fraction": 0}, method=LONG
    )
    dataset = world.prepare(config).dataset
    assert (dataset.duplicates, dataset.near_duplicates) == (1, 1)
    assert "near_duplicates" not in {issue.check for issue in report_of(world).issues}


def test_personal_data_is_masked_before_anything_sees_it(world: World) -> None:
    rows = [*planted_faults.chat_rows(60), planted_faults.chat_row("Whom do I ask for the ladder?", OWNED)]
    uri = world.write_rows("t.jsonl", rows)
    report = world.prepare(world.prepare_config(uri, personalData="Mask", method=LONG))
    split = load_prepared(world.output / "ns/uid/prepared", report.dataset.digest)
    assert any("<EMAIL>" in json.dumps(row) for row in rows_of(split))
    for file in (world.output / "ns/uid").rglob("*"):
        assert not file.is_file() or b"anna.bolt" not in file.read_bytes()
    assert ("personal_data", 1) in {(issue.check, issue.rows) for issue in report_of(world).issues}


def test_reports_quote_no_personal_data(world: World) -> None:
    bad = {"messages": [{"role": "bot", "content": OWNED}]}
    uri = world.write_rows(
        "t.jsonl", [*planted_faults.chat_rows(60), planted_faults.chat_row("Whom?", OWNED), bad]
    )
    world.prepare(world.prepare_config(uri, onInvalidRow="Drop", maxInvalidFraction=0.1, method=LONG))
    folder = world.output / "ns/uid/data-report"
    for name in ("report.json", "report.html"):
        assert "anna.bolt" not in (folder / name).read_text()
        assert "EMAIL" in (folder / name).read_text()


def test_files_of_several_kinds_are_one_data_set(world: World, make: RowBuilders) -> None:
    folder = world.root / "pvc/data/parts"
    folder.mkdir(parents=True)
    rows = make.rows(90)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:30]))
    (folder / "b.json.gz").write_bytes(gzip.compress(json.dumps(rows[30:60]).encode()))
    cells = [json.dumps(row["messages"]).replace('"', '""') for row in rows[60:]]
    (folder / "c.csv").write_text("messages\n" + "".join(f'"{cell}"\n' for cell in cells))
    report = world.prepare(world.prepare_config("pvc://data/parts/"))
    split = load_prepared(world.output / "ns/uid/prepared", report.dataset.digest)
    assert Counter(map(json.dumps, rows_of(split))) == Counter(map(json.dumps, rows))
    assert [(file.name, file.rows) for file in report_of(world).files] == [
        ("a.jsonl", 30),
        ("b.json.gz", 30),
        ("c.csv", 30),
    ]


def test_groups_stay_on_one_side(world: World, make: RowBuilders) -> None:
    rows = [row | {"meta": {"customer": number % 20}} for number, row in enumerate(make.rows(200))]
    uri = world.write_rows("t.jsonl", rows)
    validation = {"fraction": 0.3, "groupField": "meta.customer"}
    report = world.prepare(world.prepare_config(uri, validation=validation))
    split = load_prepared(world.output / "ns/uid/prepared", report.dataset.digest)
    customers = {json.dumps(row["messages"]): row["meta"]["customer"] for row in rows}
    sides = [
        {customers[json.dumps(row["messages"])] for row in side} for side in (split.train, split.validation)
    ]
    assert sides[0] and sides[1] and sides[0].isdisjoint(sides[1])


def test_a_row_without_its_group_is_refused(world: World, make: RowBuilders) -> None:
    rows = [row | {"customer": 1} for row in make.rows(20)]
    del rows[7]["customer"]
    config = world.prepare_config(
        world.write_rows("t.jsonl", rows), validation={"fraction": 0.3, "groupField": "customer"}
    )
    with pytest.raises(DataError, match=r"t\.jsonl:8: missing_field: customer"):
        world.prepare(config)


def test_text_is_divided_by_document_where_there_are_enough(world: World) -> None:
    folder = world.root / "pvc/data/books"
    folder.mkdir(parents=True)
    writer = Writer(7)
    for number in range(40):
        passages = [f"book{number} {writer.text(900, 1000)}" for _ in range(6)]
        (folder / f"{number:02}.txt").write_text("\n\n".join(passages))
    for uri, together in (("pvc://data/books/", True), ("pvc://data/books/00.txt", False)):
        uid = "many" if together else "one"
        config = world.prepare_config(uri, uid=uid, method={"pretraining": {}}, validation={"fraction": 0.4})
        report = world.prepare(config)
        split = load_prepared(world.output / f"ns/{uid}/prepared", report.dataset.digest)
        books = [{row["text"].split()[0] for row in side} for side in (split.train, split.validation)]
        assert books[0] and books[1]
        assert books[0].isdisjoint(books[1]) is together


def test_a_suite_that_can_not_be_asked_is_said_before_training(world: World, make: RowBuilders) -> None:
    exam = world.write_rows("exam.jsonl", [{"messages": [{"role": "user", "content": "x"}]}])
    config = world.prepare_config(
        world.write_rows("t.jsonl", make.rows(20)), heldOut=[{"name": "exam", "uri": exam}]
    )
    with pytest.raises(
        DataError, match=r"(?s)suite exam of the evaluation has invalid rows: .*exam\.jsonl:1"
    ):
        world.prepare(config)


def test_refused_data_has_a_page_that_says_why(world: World, make: RowBuilders) -> None:
    uri = world.write_rows("t.jsonl", [*make.rows(30), {"messages": "none"}])
    with pytest.raises(DataError, match=r"t\.jsonl:31"):
        world.prepare(world.prepare_config(uri))
    found = report_of(world)
    assert found.issues[0].check == "invalid_rows"
    assert "t.jsonl:31" in (world.output / "ns/uid/data-report/report.html").read_text()


def test_files_that_differ_in_form_are_refused(world: World, make: RowBuilders) -> None:
    chats, texts = world.write_rows("a.jsonl", make.rows(5)), [{"prompt": "a", "completion": "b"}]
    made = world.write_rows("generated.jsonl", texts)
    with pytest.raises(DataError, match=r"generated\.jsonl"):
        world.prepare(world.prepare_config(chats, generated=made, format="Chat"))


def dataset_of(world: World, config: Any) -> DatasetReport | None:
    """What prepare says; None where no rows are left."""
    try:
        return world.prepare(config).dataset
    except DataError as error:
        if error.reason != "NoTrainingRows":
            raise
        return None


kinds = st.sampled_from(["good", "again", "bad", "broken"])


@given(st.lists(kinds, min_size=1, max_size=25), st.sampled_from([0.0, 0.3]))
@settings(max_examples=cases(25, 500), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_always_add_up(world: World, make: RowBuilders, rows: list[str], fraction: float) -> None:
    good = iter(make.rows(30, seed=3))
    first = next(good)
    lines = {"again": json.dumps(first), "bad": '{"messages": []}', "broken": "{"}
    text = "".join((json.dumps(next(good)) if kind == "good" else lines[kind]) + "\n" for kind in rows)
    path: Path = world.root / "pvc/data/any.jsonl"
    path.write_text(text + json.dumps(first) + "\n")
    config = world.prepare_config(
        "pvc://data/any.jsonl",
        uid=f"u{abs(hash((tuple(rows), fraction)))}",
        onInvalidRow="Drop",
        maxInvalidFraction=0.999,
        validation={"fraction": fraction},
    )
    dataset = dataset_of(world, config)
    if dataset is None:
        return
    sides = (dataset.train_rows, dataset.validation_rows, dataset.duplicates, dataset.near_duplicates)
    assert dataset.rows == len(rows) + 1 == sum(sides) + dataset.leaked_rows + dataset.dropped_rows
    assert dataset.dropped_rows == sum(kind in {"bad", "broken"} for kind in rows)
