"""Labeled rows and their agreement report, from a server or from sheets."""

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import write_atomically
from tunesmith_data.rows.reading import raise_findings
from tunesmith_data.rows.schema.formats import Row

from .aggregation import AggregationRules, LabeledRows, aggregate
from .agreement import measure_agreement
from .agreement_report import AgreementReport
from .argilla_connection import open_argilla
from .argilla_pull import pull_answers
from .argilla_push import DatasetName
from .task_files import ROWS_SUFFIX, contradictions, read_sheet, require_sheet
from .task_items import load_items
from .votes import LabelAnswers


def pull_from_argilla(url: str, key: str, target: DatasetName) -> LabelAnswers:
    """Answers from an Argilla server.

    Raises:
        UserError, DataError, InfrastructureError: see ``open_argilla`` and ``pull_answers``.
    """
    with open_argilla(url, key) as client:
        return pull_answers(client, target)


def read_sheets(sheets: Sequence[Path], rows: Path | None, *, drop_invalid: bool) -> LabelAnswers:
    """Answers from filled-in sheets.

    Args:
        sheets: one or more a person.
        rows: the file of rows that push wrote; None looks for the only one beside the first sheet.
        drop_invalid: leave out lines that can't be read, instead of failing.

    Raises:
        UserError: a file isn't there.
        DataError: a line cannot be read; the message has the place.
    """
    items = load_items(rows or _find_rows(sheets[0]))
    filled = [(sheet.name, read_sheet(_existing(sheet), items)) for sheet in sheets]
    findings = [
        finding for _, sheet_content in filled for finding in sheet_content.findings
    ] + contradictions(filled)
    if findings and not drop_invalid:
        raise_findings(findings, "InvalidLabels")
    return LabelAnswers(items, tuple(vote for _, sheet_content in filled for vote in sheet_content.votes))


def label_rows(answers: LabelAnswers, rules: AggregationRules) -> LabeledRows:
    """Rows from answers."""
    return aggregate(list(answers.items.values()), answers.votes_by_item, rules)


def report_agreement(answers: LabelAnswers, seed: int, labeled: LabeledRows | None = None) -> AgreementReport:
    """Agreement report, with the number of rows if they are given."""
    report = measure_agreement(answers.items, answers.votes, answers.votes_by_item, seed)
    if labeled is None:
        return report
    return report.model_copy(update={"rows": len(labeled.rows), "left_out": dict(labeled.left_out)})


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines, whole or not at all."""
    lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    write_atomically(path, b"".join(lines))


def _existing(sheet: Path) -> Path:
    require_sheet(sheet)
    if not sheet.is_file():
        raise UserError("SheetNotFound", f"{sheet} does not exist: name a sheet that was filled in")
    return sheet


def _find_rows(sheet: Path) -> Path:
    there = sorted(sheet.parent.glob(f"*{ROWS_SUFFIX}"))
    if len(there) == 1:
        return there[0]
    description = f"{len(there)} files *{ROWS_SUFFIX} lie" if there else f"no file *{ROWS_SUFFIX} lies"
    raise UserError("RowsNotFound", f"{description} beside {sheet}: name the one that push wrote with --rows")
