"""``prepare FILE --model …`` on a computer without a cluster."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rows.data_reports import make_clean_report, make_report
from stages.stage_world import RowBuilders, World

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_data.__main__ import main
from tunesmith_data.command.progress_bar import ProgressBar
from tunesmith_data.command.summary import summarize
from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.page.report_files import read_report
from tunesmith_data.rows.table.parquet import read_rows


@dataclass
class Desk:
    """A folder to work in, with a model.

    Attributes:
        output: what the last command has written to standard output and standard error.
    """

    folder: Path
    model: Path
    capture: pytest.CaptureFixture[str]
    output: tuple[str, str] = ("", "")

    def write(self, name: str, rows: list[Any]) -> str:
        """A JSONL file; a string is written as it is."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return name

    def prepare(self, *arguments: str) -> int:
        """Run the command; its exit code."""
        code = main(["prepare", *arguments, "--model", str(self.model)])
        self.output = self.capture.readouterr()
        return code


@pytest.fixture
def desk(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    """A folder of its own, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, models / "llama", capsys)


def test_good_data_is_prepared_and_summed_up(desk: Desk, make: RowBuilders) -> None:
    rows = make.rows(200)
    file = desk.write("my data/tickets [1] @home.jsonl", [*rows, *rows[:9]])
    assert desk.prepare(file, "--max-length", "128") == ExitCode.SUCCEEDED
    out, err = desk.output
    assert err == ""
    assert out.startswith("tickets [1] @home.jsonl: Ready to train\n")
    report = read_report(desk.folder / "tunesmith-data/data-report")
    assert (report.counts.rows, report.counts.duplicates, report.max_length) == (209, 9, 128)
    assert report.model == str(desk.model)
    assert f"Rows read{209:>21}" in out
    assert report.estimate
    assert f"{report.estimate.steps} steps (3 epochs, batch size 4)" in out
    for name in ("data-report/report.html", "data-report/report.json", "prepared/train.parquet"):
        assert f"tunesmith-data/{name}" in out
        assert (desk.folder / "tunesmith-data" / name).is_file()
    assert len(list(read_rows(desk.folder / "tunesmith-data/prepared/train.parquet"))) == report.counts.train


def test_the_rows_are_those_of_the_cluster(desk: Desk, world: World, make: RowBuilders) -> None:
    rows = make.rows(120)
    file = desk.write("rows.jsonl", rows)
    desk.prepare(file, "--max-length", "128")
    config = world.prepare_config(world.write_rows("rows.jsonl", rows)).model_copy(update={"seed": 42})
    prepared = world.prepare(config)
    assert prepared.dataset
    assert read_report(desk.folder / "tunesmith-data/data-report").digest == prepared.dataset.digest


def test_bad_rows_are_named_by_file_and_line_and_leave_no_old_result(desk: Desk, make: RowBuilders) -> None:
    rows = make.rows(60)
    assert desk.prepare(desk.write("rows.jsonl", rows)) == ExitCode.SUCCEEDED
    rows[6] = {"messages": [{"role": "bot", "content": "x"}]}
    assert desk.prepare(desk.write("rows.jsonl", [*rows, "{nope"])) == ExitCode.DATA_ERROR
    out, err = desk.output
    assert out == ""
    assert "rows.jsonl:7: unrecognized_role" in err
    assert "rows.jsonl:61:2: invalid_json" in err
    assert "Traceback" not in err
    assert "tunesmith-data/data-report/findings.jsonl" in err
    assert "tunesmith-data/data-report/report.html" in err
    assert not (desk.folder / "tunesmith-data/prepared/train.parquet").exists()
    report = read_report(desk.folder / "tunesmith-data/data-report")
    assert report.issues[0].check == "invalid_rows"
    assert report.issues[0].severity is Severity.ERROR
    assert {str(dropped.place) for dropped in report.dropped} == {"rows.jsonl:7", "rows.jsonl:61"}


def test_bad_rows_can_be_dropped_and_are_shown(desk: Desk, make: RowBuilders) -> None:
    rows = [*make.rows(200), {"messages": []}]
    assert desk.prepare(desk.write("rows.jsonl", rows), "--on-invalid-row", "Drop") == ExitCode.SUCCEEDED
    assert "tunesmith-data/data-report/dropped.jsonl" in desk.output[0]
    report = read_report(desk.folder / "tunesmith-data/data-report")
    assert report.counts.dropped == 1
    assert [str(dropped.place) for dropped in report.dropped] == ["rows.jsonl:201"]
    many = desk.write("rows.jsonl", [*make.rows(20), {"messages": []}])
    assert desk.prepare(many, "--on-invalid-row", "Drop") == ExitCode.DATA_ERROR
    assert "maxInvalidFraction" in desk.output[1]


def test_rows_are_rendered_with_the_template_arguments_of_a_job(desk: Desk, make: RowBuilders) -> None:
    file = desk.write("rows.jsonl", make.rows(60))
    desk.model = Path(shutil.copytree(desk.model, desk.folder / "switched"))
    template = desk.model / "chat_template.jinja"
    template.write_text("{% if preamble is defined %}{{ preamble }} {% endif %}" + template.read_text())
    lengths = []
    for arguments in ([], ["--template-arguments", 'preamble="one two three"']):
        assert desk.prepare(file, *arguments) == ExitCode.SUCCEEDED
        report = read_report(desk.folder / "tunesmith-data/data-report")
        lengths.append(report.tokens)
    assert lengths[0] != lengths[1]


def test_warnings_fail_where_people_are_strict(desk: Desk, make: RowBuilders) -> None:
    file = desk.write("few.jsonl", make.rows(30))
    assert desk.prepare(file) == ExitCode.SUCCEEDED
    assert "Ready, with 1 warning" in desk.output[0]
    assert desk.prepare(file, "--strict") == ExitCode.DATA_ERROR
    assert "Ready, with 1 warning" in desk.output[0]


def test_validation_is_a_fraction_or_a_file(desk: Desk, make: RowBuilders) -> None:
    train, held = desk.write("train.jsonl", make.rows(100)), desk.write("held.jsonl", make.rows(30, seed=9))
    assert desk.prepare(train, "--validation", "0", "--output", "none") == ExitCode.SUCCEEDED
    assert read_report(desk.folder / "none/data-report").counts.validation == 0
    assert desk.prepare(train, "--validation", held, "--output", "own") == ExitCode.SUCCEEDED
    assert read_report(desk.folder / "own/data-report").counts.validation == 30


def test_the_estimate_needs_a_gpu_and_a_price(desk: Desk, make: RowBuilders) -> None:
    file = desk.write("rows.jsonl", make.rows(100))
    desk.prepare(file)
    assert "GPU hours" not in desk.output[0]
    desk.prepare(file, "--gpu", "H100", "--price-per-gpu-hour", "1e6", "--currency", "CHF", "--epochs", "5")
    assert "on one H100" in desk.output[0]
    estimate = read_report(desk.folder / "tunesmith-data/data-report").estimate
    assert estimate
    assert estimate.epochs == 5
    assert estimate.gpu_hours
    assert estimate.amount == pytest.approx(estimate.gpu_hours * 1e6, rel=1e-4)
    assert estimate.currency == "CHF"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl does not exist"),
        (["rows.jsonl", "--validation", "missing.jsonl"], "missing.jsonl does not exist"),
        (["rows.jsonl", "--held-out", "rows.jsonl"], "write NAME=FILE"),
        (["rows.jsonl", "--held-out", "Not So=rows.jsonl"], "lower-case"),
        (["rows.jsonl", "--gpu", "Z80"], "H100"),
        (["rows.jsonl", "--price-per-gpu-hour", "2"], "add --gpu"),
        (["rows.jsonl", "--max-length", "3"], "--max-length"),
        (["rows.jsonl", "--validation", "1.5"], "a fraction from 0 on"),
        (["rows.jsonl", "--epochs", "0"], "--epochs"),
        (["rows.jsonl", "--output", "rows.jsonl"], "is a file"),
        (["rows.jsonl", "--template-arguments", "enable_thinking"], "write NAME=VALUE"),
        (["rows.jsonl", "--template-arguments", "enable_thinking=False"], "write NAME=VALUE"),
        (["rows.jsonl", "--template-arguments", "a-b=1"], "write NAME=VALUE"),
        (["rows.jsonl", "--template-arguments", "a=[1]"], "write NAME=VALUE"),
        (["rows.jsonl", "--template-arguments", "enable_thinking=false"], "no argument enable_thinking"),
        ([], "write prepare FILE"),
    ],
)
def test_mistakes_are_answered_with_what_to_write(
    desk: Desk, make: RowBuilders, arguments: list[str], message: str
) -> None:
    desk.write("rows.jsonl", make.rows(20))
    assert desk.prepare(*arguments) == ExitCode.USER_ERROR
    out, err = desk.output
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_is_a_folder_or_a_name_of_the_hub(
    desk: Desk, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.write("rows.jsonl", make.rows(20))
    desk.model = Path("./models/none")
    assert main(["prepare", file, "--model", "./models/none"]) == ExitCode.USER_ERROR
    assert "write a model's folder" in desk.capture.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["prepare", file, "--model", "no-such/model"]) == ExitCode.USER_ERROR
    assert "no-such/model is not a local folder" in desk.capture.readouterr().err


@pytest.mark.long
def test_as_a_program_it_draws_nothing_where_nobody_looks(desk: Desk, make: RowBuilders) -> None:
    """Beside torch and TRL; without them a test of the short form shows it."""
    file = desk.write("rows.jsonl", make.rows(60))
    command = [sys.executable, "-m", "tunesmith_data", "prepare", file, "--model", str(desk.model)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    # As bytes: text would lose what returns to the start of a line.
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == ExitCode.SUCCEEDED
    assert result.stderr == b""
    assert b"\r" not in result.stdout
    assert b"rows.jsonl: Ready" in result.stdout


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_bar_that_names_the_part() -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    for done, part in ((0, "reading"), (25, "reading"), (30, "cleaning")):
        bar.update(done, 50, part=part, rows=1000 * done)
    bar.update(50, 50)
    bar.close()
    (line,) = terminal.getvalue().rstrip("\n").split("\n")
    shown = [state.partition("|")[0].split() for state in line.split("\r") if "rows" in state]
    assert shown[1:4] == [
        ["reading", "25,000", "rows", "50%"],
        ["cleaning", "30,000", "rows", "60%"],
        ["cleaning", "30,000", "rows", "100%"],
    ]


def test_a_bar_says_nothing_to_a_file() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.update(1, 2, part="reading")
    bar.close()
    assert stream.getvalue() == ""


def test_the_summary_names_each_issue_with_its_first_place() -> None:
    text = summarize(make_report(), {"Page": Path("out/report.html")})
    assert "Error     contradicting_answers: 118 rows" in text
    assert "first at support-2026.jsonl:204" in text
    assert "Recommended       sft, LoRA: Supervised" in text
    assert "663 steps (3 epochs, batch size 16), about 21 min on one H100, 0.35 GPU hours" in text
    assert "Page              out/report.html" in text
    assert max(map(len, text.splitlines())) <= 104
    assert "Recommended" not in summarize(make_clean_report(), {})
