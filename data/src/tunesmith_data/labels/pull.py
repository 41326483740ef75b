"""Labels as rows to learn from: what people answered, how far they agree, and what comes of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import write_atomically
from tunesmith_data.rows.reading import raise_findings
from tunesmith_data.rows.schema.formats import Row

from .aggregation import Labelled, Rules, aggregate
from .agreement import measure_agreement
from .agreement_report import AgreementReport
from .argilla_connection import open_argilla
from .argilla_pull import pull_answers
from .argilla_push import DatasetName
from .task_files import ROWS_SUFFIX, contradictions, read_sheet, require_sheet
from .task_items import Item, load_items
from .votes import Ballot, Vote, count_votes


@dataclass(frozen=True)
class Answers:
    """Tasks, by id, and all that was said of them."""

    items: Mapping[str, Item]
    votes: Sequence[Vote]

    @property
    def ballot(self) -> Ballot:
        """The votes by item and annotator."""
        return count_votes(self.votes)


def from_argilla(url: str, key: str, target: DatasetName) -> Answers:
    """What people answered on a server.

    Raises:
        UserError, DataError, InfrastructureError: see ``open_argilla`` and ``pull_answers``.
    """
    with open_argilla(url, key) as client:
        answered = pull_answers(client, target)
    return Answers(answered.items, answered.votes)


def from_sheets(sheets: Sequence[Path], rows: Path | None, *, drop_invalid: bool) -> Answers:
    """What people wrote into sheets.

    Args:
        sheets: one or more a person.
        rows: the file of rows that push wrote; None looks for the only one beside the first sheet.
        drop_invalid: leave out lines that can't be read, instead of failing.

    Raises:
        UserError: a file isn't there.
        DataError: what is written can't be read; the message says where.
    """
    items = load_items(rows or _find_rows(sheets[0]))
    filled = [(sheet.name, read_sheet(_existing(sheet), items)) for sheet in sheets]
    findings = [finding for _, each in filled for finding in each.findings] + contradictions(filled)
    if findings and not drop_invalid:
        raise_findings(findings, "InvalidLabels")
    return Answers(items, tuple(vote for _, each in filled for vote in each.votes))


def label_rows(answers: Answers, rules: Rules) -> Labelled:
    """The rows that come of answers."""
    return aggregate(list(answers.items.values()), answers.ballot, rules)


def report_on(answers: Answers, seed: int, labelled: Labelled | None = None) -> AgreementReport:
    """How far people agree, and what came of it."""
    report = measure_agreement(answers.items, answers.votes, answers.ballot, seed)
    if labelled is None:
        return report
    return report.model_copy(update={"rows": len(labelled.rows), "left_out": dict(labelled.left_out)})


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
    found = f"{len(there)} files *{ROWS_SUFFIX} lie" if there else f"no file *{ROWS_SUFFIX} lies"
    raise UserError("RowsNotFound", f"{found} beside {sheet}: name the one that push wrote with --rows")
