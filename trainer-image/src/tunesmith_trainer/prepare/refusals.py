"""What failed a check: written down as it is found, and counted."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith_contract.layout import DROPPED_FILE, FINDINGS_FILE
from tunesmith_contract.run_config import OnInvalidRow, PrepareConfig
from tunesmith_trainer.data.findings import Finding, Place, excerpt
from tunesmith_trainer.data.reading import RefusedRow, raise_findings
from tunesmith_trainer.data.reading.failing import SHOWN_FINDINGS
from tunesmith_trainer.data.report import MAX_DROPPED, Dropped
from tunesmith_trainer.failures import DataError
from tunesmith_trainer.storage import open_atomically


class Refusals:
    """Rows that can't be learned from: ``findings.jsonl`` holds what is wrong, ``dropped.jsonl`` the rows as well.

    Use it as a context; the files are there once it is left.

    Attributes:
        rows: how many rows were refused.
        silent: how many of them without a finding: answers of a teacher that were cut off.
        checks: rows by the checks that they failed.
        shown: the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._findings: BinaryIO | None = None
        self._dropped: BinaryIO | None = None
        self._first: list[Finding] = []
        self._count = 0
        self.rows = self.silent = 0
        self.checks: Counter[str] = Counter()
        self.shown: list[Dropped] = []

    def __enter__(self) -> "Refusals":
        self._files.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add(self, row: RefusedRow) -> None:
        """Write a row down."""
        if self._findings is None or self._dropped is None:
            self._findings = self._files.enter_context(open_atomically(self._folder / FINDINGS_FILE))
            self._dropped = self._files.enter_context(open_atomically(self._folder / DROPPED_FILE))
        self.rows += 1
        self.silent += not row.findings
        self.checks.update({finding.problem.check for finding in row.findings})
        self._count += len(row.findings)
        self._first += (
            row.findings[: SHOWN_FINDINGS - len(self._first)] if len(self._first) < SHOWN_FINDINGS else ()
        )
        for finding in row.findings:
            self._findings.write(_line(finding.to_dict()))
        reasons = [str(finding) for finding in row.findings]
        self._dropped.write(_line({"file": row.file, "line": row.line, "reasons": reasons, "row": row.row}))
        if len(self.shown) < MAX_DROPPED:
            place = Place(file=row.file, line=row.line)
            said = excerpt(json.dumps(row.row, ensure_ascii=False)) if row.row is not None else ""
            self.shown.append(Dropped(place=place, reasons=tuple(reasons), excerpt=said))

    def require_few(self, config: PrepareConfig, rows: int) -> None:
        """Fail where there are more than the run allows.

        Args:
            rows: all rows, these included.

        Raises:
            DataError: with the first findings and their number.
        """
        if not self._count:
            return
        if config.on_invalid_row is OnInvalidRow.FAIL:
            raise_findings(self._first, count=self._count)
        if self.rows > config.max_invalid_fraction * rows:
            self._raise_too_many(rows, config.max_invalid_fraction)

    def _raise_too_many(self, rows: int, allowed: float) -> None:
        try:
            raise_findings(self._first, count=self._count)
        except DataError as error:
            share = (
                f"{self.rows:,} of {rows:,} rows are invalid, more than maxInvalidFraction {allowed:g} allows"
            )
            raise DataError("TooManyInvalidRows", f"{share}: {error.message}") from None


def _line(value: object) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"
