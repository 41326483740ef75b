"""``tunesmith-data labels push|pull|agreement``: labeling tasks from rows, and rows from the answers."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.exit_codes import ExitCode, exit_code_of
from tunesmith_contract.labels import LabelAggregate, LabelOutput
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import StageError, UserError
from tunesmith_data.pod.storage import write_atomically

from .aggregation import AggregationRules
from .agreement_table import render
from .argilla_connection import find_key, open_argilla
from .argilla_push import DatasetName, PushOptions, push_items
from .pull import label_rows, pull_from_argilla, read_sheets, report_agreement, write_rows
from .task_files import require_sheet, rows_path, sheet_path, write_sheet
from .task_items import LabelItems, read_items, write_items
from .tasks import LabelTask, TaskKind
from .votes import LabelAnswers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the contract's exit code."""
    options = build_parser().parse_args(arguments)
    # The client logs each batch, and the user's name.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        sys.stdout.write(options.run(options))
    except StageError as error:
        sys.stderr.write(f"{error.reason}: {error.message}\n")
        return int(exit_code_of(error.category))
    return int(ExitCode.SUCCEEDED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tunesmith-data labels", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="push|pull|agreement")
    _add_push(commands.add_parser("push", help="make tasks of rows"))
    pull = commands.add_parser("pull", help="make rows of what people answered")
    _add_source(pull)
    _add_rules(pull)
    pull.set_defaults(run=_pull)
    agreement = commands.add_parser("agreement", help="say how far people agree")
    _add_source(agreement)
    agreement.set_defaults(run=_agreement)
    return parser


def _add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="rows to label")
    parser.add_argument("--task", type=TaskKind, required=True, choices=list(TaskKind), help="what people do")
    parser.add_argument(
        "--labels", default="", help="of a classification: its labels, with commas between them"
    )
    parser.add_argument("--scale", type=int, default=5, help="the best rating")
    parser.add_argument("--format", type=DataFormat, default=DataFormat.AUTO, choices=list(DataFormat))
    parser.add_argument("--seed", type=int, default=42, help="another one shuffles answers A and B otherwise")
    parser.add_argument("--out", type=Path, help="a sheet to write, .csv or .jsonl")
    parser.add_argument("--annotators", nargs="+", default=[], help="write a sheet for each of them")
    _add_argilla(parser)
    parser.add_argument("--guidelines", type=Path, help="a Markdown file that people read first")
    parser.add_argument("--min-submitted", type=int, default=1, help="answers after which a task is done")
    parser.add_argument("--suggest", action="store_true", help="show annotators the row's own answer")
    parser.set_defaults(run=_push)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sheets", type=Path, nargs="*", help="sheets that were filled in")
    parser.add_argument("--rows", type=Path, help="the file of rows that push wrote beside the sheet")
    parser.add_argument("--drop-invalid", action="store_true", help="leave out lines that can't be read")
    _add_argilla(parser)
    parser.add_argument("--agreement", type=Path, help="where the report on agreement goes, as JSON")
    parser.add_argument("--seed", type=int, default=42, help="of the bootstrap")


def _add_argilla(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--argilla-url", help="the server's URL")
    parser.add_argument("--dataset", help="the dataset's name on the server")
    parser.add_argument("--workspace", help="the dataset's workspace; not needed where there is only one")
    parser.add_argument("--key-file", type=Path, help="a file, or a Secret's folder, with the API key")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="where the rows go, as JSON lines")
    _add_choice(parser, "--aggregate", LabelAggregate)
    parser.add_argument("--min-annotators", type=int, default=1, help="answers that a row needs")
    _add_choice(parser, "--output", LabelOutput)
    parser.add_argument(
        "--approve-from",
        type=int,
        help="lowest rating of a good answer; by default three quarters of the scale",
    )


def _add_choice(parser: argparse.ArgumentParser, name: str, choices: type[StrEnum]) -> None:
    """An option that takes the values of an enum in small letters; the first is the default."""
    values = [choice.value.lower() for choice in choices]
    parser.add_argument(name, choices=values, default=values[0], help=choices.__doc__)


def _push(options: argparse.Namespace) -> str:
    if bool(options.argilla_url) == bool(options.out):
        raise UserError("NoTarget", "name a sheet with --out, or a server with --argilla-url: one of them")
    if not options.file.is_file():
        raise UserError("DatasetNotFound", f"{options.file} does not exist: name a file of rows")
    items = read_items(options.file, options.format, _task(options), options.seed)
    if options.out:
        written = _push_sheets(options, items)
    else:
        push = PushOptions(_guidelines(options.guidelines), options.min_submitted, options.suggest)
        with open_argilla(options.argilla_url, find_key(options.key_file)) as client:
            push_items(client, _target(options), items.items, push)
        written = f"dataset {options.dataset}"
    repeated = f"; {items.repeated:,} rows repeat another one" if items.repeated else ""
    return f"{len(items.items):,} tasks in {written}{repeated}\n"


def _push_sheets(options: argparse.Namespace, items: LabelItems) -> str:
    """Write the sheets after the file of rows; never over sheets that may contain answers."""
    require_sheet(options.out)
    names = {sheet_path(options.out, name): name for name in options.annotators} or {options.out: ""}
    sheets = {sheet: write_sheet(sheet, items.items, name) for sheet, name in names.items()}
    filled = [sheet for sheet, data in sheets.items() if sheet.exists() and sheet.read_bytes() != data]
    if filled:
        raise UserError("SheetExists", f"{filled[0]} is there and may hold answers: name another sheet")
    write_atomically(rows_path(options.out), write_items(items.items))
    for sheet, data in sheets.items():
        write_atomically(sheet, data)
    return f"{', '.join(str(sheet) for sheet in sheets)}, for which {rows_path(options.out)} has the rows"


def _pull(options: argparse.Namespace) -> str:
    answers = _answers(options)
    aggregate = LabelAggregate(options.aggregate.capitalize())
    output = LabelOutput(options.output.capitalize())
    rules = AggregationRules(aggregate, options.min_annotators, output, options.approve_from)
    labeled = label_rows(answers, rules)
    write_rows(options.out, labeled.rows)
    report = report_agreement(answers, options.seed, labeled)
    if options.agreement:
        write_atomically(options.agreement, report.to_json().encode())
    return render(report)


def _agreement(options: argparse.Namespace) -> str:
    report = report_agreement(_answers(options), options.seed)
    if options.agreement:
        write_atomically(options.agreement, report.to_json().encode())
    return render(report)


def _answers(options: argparse.Namespace) -> LabelAnswers:
    if bool(options.argilla_url) == bool(options.sheets):
        raise UserError("NoSource", "name filled-in sheets, or a server with --argilla-url: one of them")
    if options.sheets:
        return read_sheets(options.sheets, options.rows, drop_invalid=options.drop_invalid)
    return pull_from_argilla(options.argilla_url, find_key(options.key_file, os.environ), _target(options))


def _target(options: argparse.Namespace) -> DatasetName:
    if not options.dataset:
        raise UserError("NoDataset", "name the dataset on the server with --dataset")
    return DatasetName(options.dataset, options.workspace)


def _task(options: argparse.Namespace) -> LabelTask:
    labels = tuple(label.strip() for label in options.labels.split(",") if label.strip())
    try:
        return LabelTask(kind=options.task, labels=labels, scale=options.scale)
    except ValidationError as error:
        finding = error.errors()[0]
        raise UserError("WrongTask", f"the task can't be asked: {finding['msg']}") from error


def _guidelines(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text()
    except (OSError, UnicodeError) as error:
        raise UserError("GuidelinesNotFound", f"{path} can't be read: name a text file in UTF-8") from error
