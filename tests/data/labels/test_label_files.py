"""Labels in plain files: items written to sheets, rows made from the answers."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows.filled_sheets import Person, fill, read_table

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.labels import LabelAggregate, LabelOutput
from tunesmith_contract.sources import DataFormat
from tunesmith_data.__main__ import main as run_command
from tunesmith_data.labels.aggregation import AggregationRules, OmissionReason, aggregate, majority_value
from tunesmith_data.labels.pull import label_rows, read_sheets
from tunesmith_data.labels.task_files import escape_formula, rows_path, unescape_formula, write_sheet
from tunesmith_data.labels.task_items import build_item, write_items
from tunesmith_data.labels.tasks import LabelTask, TaskKind
from tunesmith_data.labels.votes import Vote, count_votes
from tunesmith_data.rows.reading import read_source

Row = dict[str, Any]

CHAT: Row = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "Paris"},
    ]
}
PLAIN: Row = {"prompt": "Capital of Peru?", "completion": "Lima"}
PAIR: Row = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def push(folder: Path, rows: list[Row], *options: str, sheet: str = "tasks.csv") -> Path:
    """Push rows to a sheet; returns the sheet."""
    file = write_rows(folder / "rows.jsonl", rows)
    assert run_command(["labels", "push", str(file), "--out", str(folder / sheet), *options]) == 0
    return folder / sheet


def pull(folder: Path, sheets: list[Path], *options: str) -> list[Row]:
    """Pull sheets; returns the rows that came out."""
    out = folder / "labeled.jsonl"
    assert run_command(["labels", "pull", *map(str, sheets), "--out", str(out), *options]) == 0
    return read_rows(out)


def says(value: str, column: str = "choice") -> Any:
    """Someone who always writes the same."""
    return lambda line: {column: value}


def prefers(good: str) -> Any:
    """Someone who prefers the answer with a text, wherever it stands."""
    return lambda line: {"choice": "A" if line["answer_a"] == escape_formula(good) else "B"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_preferences_come_back_in_trls_form(tmp_path: Path, suffix: str) -> None:
    sheet = push(tmp_path, [PAIR], "--task", "preference", sheet=f"tasks{suffix}")
    anna = fill(sheet, tmp_path / f"anna{suffix}", prefers("5"))
    ben = fill(sheet, tmp_path / f"ben{suffix}", prefers("5"))
    rows = pull(tmp_path, [anna, ben], "--min-annotators", "2")
    assert rows == [{"prompt": "2 + 2?", "chosen": "5", "rejected": "4"}]
    assert read_source(tmp_path / "labeled.jsonl", DataFormat.AUTO).data_format is DataFormat.PREFERENCE


def test_ties_and_skips_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": prompt} for prompt in ("tie", "skip", "A")]
    sheet = push(tmp_path, rows, "--task", "preference")
    anna = fill(sheet, tmp_path / "anna.csv", lambda line: {"choice": line["prompt"]})
    report = tmp_path / "agreement.json"
    assert len(pull(tmp_path, [anna], "--agreement", str(report))) == 1
    found = json.loads(report.read_text())
    assert found["skipped"] == 1
    assert found["leftOut"] == {"tie": 1, "tooFewAnnotators": 1}
    assert found["rows"] == 1


@pytest.mark.parametrize(
    ("task", "written", "row", "expected"),
    [
        (["approve"], {"choice": "YES"}, CHAT, [CHAT]),
        (["approve"], {"choice": "no"}, CHAT, []),
        (["rating"], {"choice": "4"}, PLAIN, [PLAIN]),
        (["rating"], {"choice": "3"}, PLAIN, []),
        (["rating", "--scale", "10"], {"choice": "8"}, PLAIN, [PLAIN]),
        (["rating", "--scale", "10"], {"choice": "7"}, PLAIN, []),
        (
            ["classification", "--labels", "geo,maths"],
            {"choice": "Geo"},
            {"prompt": "Capital of Peru?"},
            [{"prompt": "Capital of Peru?", "completion": "geo"}],
        ),
        (
            ["classification", "--labels", "geo,maths"],
            {"choice": "geo"},
            CHAT,
            [{"messages": [*CHAT["messages"][:2], {"role": "assistant", "content": "geo"}]}],
        ),
        (
            ["correction"],
            {"correction": "'-3 degrees"},
            {"prompt": [{"role": "user", "content": "cold?"}], "answer": "3"},
            [
                {
                    "prompt": [{"role": "user", "content": "cold?"}],
                    "completion": [{"role": "assistant", "content": "-3 degrees"}],
                }
            ],
        ),
    ],
)
def test_each_task_makes_its_rows(
    tmp_path: Path, task: list[str], written: dict[str, str], row: Row, expected: list[Row]
) -> None:
    sheet = push(tmp_path, [row], "--task", *task)
    assert pull(tmp_path, [fill(sheet, tmp_path / "anna.csv", lambda line: written)]) == expected


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        (CHAT, CHAT["messages"][:2], CHAT["messages"][2:]),
        (PLAIN, PLAIN["prompt"], PLAIN["completion"]),
        ({"prompt": "Capital of Peru?", "answer": "Lima"}, "Capital of Peru?", "Lima"),
        ({**PLAIN, "label": False}, PLAIN["prompt"], PLAIN["completion"]),
    ],
)
def test_judged_answers_come_out_with_their_label(
    tmp_path: Path, row: Row, prompt: Any, completion: Any
) -> None:
    sheet = push(tmp_path, [row], "--task", "approve")
    filled = fill(sheet, tmp_path / "anna.csv", says("no"))
    labeled = {"prompt": prompt, "completion": completion, "label": False}
    assert pull(tmp_path, [filled], "--output", "unpaired") == [labeled]


def test_tools_stay_with_their_row(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    sheet = push(tmp_path, [{**CHAT, "tools": tools}], "--task", "correction")
    (row,) = pull(tmp_path, [fill(sheet, tmp_path / "anna.csv", says("Paris.", "correction"))])
    assert row["tools"] == tools
    assert row["messages"][-1]["content"] == "Paris."


def test_people_see_who_says_what(tmp_path: Path) -> None:
    (line,) = read_table(push(tmp_path, [CHAT], "--task", "approve"))
    assert line["prompt"] == "System: Be brief.\n\nUser: Capital of France?"
    assert line["answer"] == "Paris"


def test_a_sheet_for_each_person(tmp_path: Path) -> None:
    push(tmp_path, [PLAIN], "--task", "approve", "--annotators", "anna", "ben")
    filled = [
        fill(tmp_path / f"tasks-{name}.csv", tmp_path / f"{name}.csv", says("yes"))
        for name in ("anna", "ben")
    ]
    report = tmp_path / "agreement.json"
    pull(tmp_path, filled, "--agreement", str(report), "--rows", str(tmp_path / "tasks.rows.jsonl"))
    assert [each["name"] for each in json.loads(report.read_text())["annotators"]] == ["anna", "ben"]


def test_pushing_again_never_overwrites_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = push(tmp_path, [PLAIN], "--task", "approve")
    assert push(tmp_path, [PLAIN], "--task", "approve") == sheet
    filled = fill(sheet, sheet, says("yes")).read_bytes()
    command = ["labels", "push", str(tmp_path / "rows.jsonl"), "--out", str(sheet), "--task", "rating"]
    assert run_command(command) == ExitCode.USER_ERROR
    assert "SheetExists: " in capsys.readouterr().err
    assert sheet.read_bytes() == filled
    assert pull(tmp_path, [sheet]) == [PLAIN]


def test_repeated_rows_are_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = push(tmp_path, [PLAIN, PLAIN], "--task", "approve")
    assert len(read_table(sheet)) == 1
    assert "1 rows repeat another one" in capsys.readouterr().out


def test_another_seed_shows_answers_in_another_order() -> None:
    task = LabelTask(kind=TaskKind.PREFERENCE)
    rows = [{**PAIR, "prompt": str(number)} for number in range(200)]
    orders = [[build_item(row, task, "f", 1, seed).flipped for row in rows] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert 60 < sum(orders[0]) < 140


@settings(max_examples=cases(50, 1000))
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), spreadsheet=st.booleans())
def test_what_is_approved_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], spreadsheet: bool
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    task = LabelTask(kind=TaskKind.APPROVE)
    items = [
        build_item({"prompt": prompt, "completion": completion}, task, "rows.jsonl", line, 0)
        for line, (prompt, completion) in enumerate(dict(rows).items(), start=1)
    ]
    sheet = folder / "tasks.csv"
    sheet.write_bytes(write_sheet(sheet, items))
    rows_path(sheet).write_bytes(write_items(items))
    filled = fill(sheet, folder / "anna.csv", says("yes"), spreadsheet=spreadsheet)
    answers = read_sheets([filled], None, drop_invalid=False)
    assert list(label_rows(answers, AggregationRules()).rows) == [item.row for item in items]


@settings(max_examples=cases(50, 1000))
@given(text=TEXT, spreadsheet=st.booleans())
def test_a_correction_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, text: str, spreadsheet: bool
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    item = build_item(PLAIN, LabelTask(kind=TaskKind.CORRECTION), "rows.jsonl", 1, 0)
    sheet = folder / "tasks.csv"
    sheet.write_bytes(write_sheet(sheet, [item]))
    rows_path(sheet).write_bytes(write_items([item]))
    filled = fill(
        sheet, folder / "anna.csv", says(escape_formula(text), "correction"), spreadsheet=spreadsheet
    )
    answers = read_sheets([filled], None, drop_invalid=False)
    said = None if text.strip().casefold() == "skip" else text
    assert [vote.value for vote in answers.votes] == [said]


@given(seed=st.integers(0, 2**32), prompt=TEXT, rejected=st.booleans())
def test_the_order_of_answers_is_undone(seed: int, prompt: str, rejected: bool) -> None:
    item = build_item({**PAIR, "prompt": prompt}, LabelTask(kind=TaskKind.PREFERENCE), "f", 1, seed)
    wanted = PAIR["rejected" if rejected else "chosen"]
    choice = "A" if item.answers["answer_a"] == wanted else "B"
    (row,) = aggregate([item], count_votes([Vote(item.id, "anna", choice)]), AggregationRules()).rows
    assert row["chosen"] == wanted
    assert {row["chosen"], row["rejected"]} == {"4", "5"}


VALUES: Mapping[TaskKind, Any] = {
    TaskKind.PREFERENCE: st.sampled_from(["A", "B", "tie"]),
    TaskKind.RATING: st.sampled_from(["1", "2", "3", "4", "5"]),
    TaskKind.CORRECTION: st.text("ab ", min_size=1, max_size=4),
}


@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)), everyone=st.sampled_from(list(LabelAggregate)))
def test_the_order_of_annotators_does_not_matter(
    data: st.DataObject, kind: TaskKind, everyone: LabelAggregate
) -> None:
    item = build_item(PAIR if kind is TaskKind.PREFERENCE else PLAIN, LabelTask(kind=kind), "f", 1, 0)
    values = data.draw(st.lists(VALUES[kind], min_size=1, max_size=6))
    shuffled = data.draw(st.permutations(values))
    results = [
        aggregate(
            [item],
            count_votes(Vote(item.id, f"a{n}", value) for n, value in enumerate(said)),
            AggregationRules(everyone),
        )
        for said in (values, shuffled)
    ]
    assert results[0] == results[1]
    assert len(results[0].rows) + sum(results[0].left_out.values()) == (
        1 if everyone is LabelAggregate.MAJORITY else len(values)
    )


@given(TEXT | st.sampled_from(["=1+1", "'=1", "''-2", "+a", "@b", "\tc", "-", "'"]))
def test_no_cell_is_a_formula(text: str) -> None:
    assert escape_formula(text)[0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
    assert unescape_formula(escape_formula(text)) == text


def test_what_most_say() -> None:
    assert majority_value(TaskKind.PREFERENCE, ["A", "B", "A"]) == "A"
    assert majority_value(TaskKind.PREFERENCE, ["A", "B"]) is None
    assert majority_value(TaskKind.RATING, ["1", "5", "5", "4"]) == "4.5"
    assert majority_value(TaskKind.CORRECTION, ["the cat sat", "the cat sits", "dogs"]) == "the cat sat"


def test_too_few_annotators_and_draws_are_counted() -> None:
    task = LabelTask(kind=TaskKind.APPROVE)
    items = [build_item({**PLAIN, "prompt": str(number)}, task, "f", number, 0) for number in range(3)]
    said = [("yes", "no"), ("yes",), ("no", "no")]
    votes = [
        Vote(item.id, f"a{n}", value)
        for item, values in zip(items, said, strict=True)
        for n, value in enumerate(values)
    ]
    labeled = aggregate(items, count_votes(votes), AggregationRules(min_annotators=2))
    assert labeled.left_out == {
        OmissionReason.TOO_FEW: 1,
        OmissionReason.NO_MAJORITY: 1,
        OmissionReason.NOT_APPROVED: 1,
    }
    unpaired = aggregate(
        items, count_votes(votes), AggregationRules(min_annotators=2, output=LabelOutput.UNPAIRED)
    )
    assert [row["label"] for row in unpaired.rows] == [False]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"choice": "maybe"},
            'tasks.csv:2: unknown_choice: choice: found "maybe"; write one of yes, no, or skip',
        ),
        ({"id": "sha256:1", "choice": "yes"}, 'tasks.csv:2: unknown_id: id: found "sha256:1"; keep the id'),
        ({"id": "", "choice": "yes"}, "tasks.csv:2: unknown_id: id: found no id"),
    ],
)
def test_a_wrong_value_is_found_where_it_stands(
    tmp_path: Path, line: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = push(tmp_path, [PLAIN], "--task", "approve")
    fill(sheet, sheet, lambda _: line)
    out = tmp_path / "labeled.jsonl"
    command = ["labels", "pull", str(sheet), "--out", str(out)]
    assert run_command(command) == ExitCode.DATA_ERROR
    assert expected in capsys.readouterr().err
    assert not out.exists()
    assert run_command([*command, "--drop-invalid"]) == ExitCode.SUCCEEDED
    assert read_rows(out) == []


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b"", "missing_id"),
        (b"name;choice\n1;yes\n", "missing_id"),
        ("id;choice\nä;yes\n".encode("latin-1"), "invalid_encoding"),
        (b'id,choice\n"1,yes\n', "invalid_csv"),
    ],
)
def test_what_is_no_sheet_is_refused(
    tmp_path: Path, data: bytes, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = push(tmp_path, [PLAIN], "--task", "approve")
    sheet.write_bytes(data)
    assert run_command(["labels", "agreement", str(sheet)]) == ExitCode.DATA_ERROR
    assert check in capsys.readouterr().err


def test_two_answers_of_one_person_are_a_contradiction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = push(tmp_path, [PLAIN], "--task", "approve")

    def anna(choice: str) -> Person:
        return lambda line: {"annotator": "anna", "choice": choice}

    sheets = [fill(sheet, tmp_path / f"{choice}.csv", anna(choice)) for choice in ("yes", "no")]
    assert run_command(["labels", "agreement", *map(str, sheets)]) == ExitCode.DATA_ERROR
    assert 'two_answers: annotator: found "yes" and "no" by anna' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "task", "reason"),
    [
        ([PAIR], ["approve"], "WrongFormat: task approve needs rows"),
        ([PLAIN], ["preference"], "or choose task approve or rating or classification or correction"),
        (
            [{"prompt": "no answer"}],
            ["approve"],
            "rows.jsonl:1: missing_completion: found no answer to judge",
        ),
        ([PLAIN], ["classification"], "WrongTask: the task can't be asked"),
        ([PLAIN], ["classification", "--labels", "a,A"], "WrongTask"),
        ([PLAIN], ["rating", "--scale", "1"], "WrongTask"),
    ],
)
def test_rows_that_do_not_fit_the_task_are_refused(
    tmp_path: Path, rows: list[Row], task: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", rows)
    code = run_command(["labels", "push", str(file), "--out", str(tmp_path / "tasks.csv"), "--task", *task])
    assert code in (ExitCode.DATA_ERROR, ExitCode.USER_ERROR)
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["push", "rows.jsonl", "--task", "approve"], "NoTarget"),
        (["push", "none.jsonl", "--task", "approve", "--out", "t.csv"], "DatasetNotFound"),
        (["push", "rows.jsonl", "--task", "approve", "--out", "t.xlsx"], "UnknownSheet"),
        (["agreement"], "NoSource"),
        (["agreement", "none.csv"], "RowsNotFound"),
        (["agreement", "none.csv", "--rows", "none.rows.jsonl"], "RowsNotFound"),
        (["agreement", "none.csv", "--rows", "rows.jsonl"], "WrongRows"),
        (["agreement", "--argilla-url", "http://127.0.0.1:1", "--key-file", "none"], "LabelsKeyMissing"),
    ],
)
def test_a_command_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows.jsonl"), [PLAIN])
    assert run_command(["labels", *command]) in (ExitCode.USER_ERROR, ExitCode.DATA_ERROR)
    assert capsys.readouterr().err.startswith(f"{reason}: ")


def test_labels_need_no_torch() -> None:
    check = "import sys, tunesmith_data.labels.command; sys.exit('torch' in sys.modules or 'argilla' in sys.modules)"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", check], env={**os.environ, **path}, check=True)
