"""Record of invalid rows: files of findings and dropped rows, and counts."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith_contract.layout import DROPPED_FILE, FINDINGS_FILE
from tunesmith_contract.run_config import OnInvalidRow, PrepareConfig
from tunesmith_data.failures import DataError
from tunesmith_data.pod.storage import open_atomically
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Finding, Issue, RowPlace, Severity, excerpt
from tunesmith_data.rows.reading import InvalidRow, raise_findings
from tunesmith_data.rows.reading.read_errors import SHOWN_FINDINGS
from tunesmith_data.rows.report.data_report import MAX_DROPPED, DroppedRow

_NAMED = 4
_DETAIL_CHARACTERS = 300


class InvalidRows:
    """Writer and counter of invalid rows: ``findings.jsonl`` has the findings, ``dropped.jsonl`` the rows too.

    Use it as a context; the files are there once it is left.

    Attributes:
        rows: number of invalid rows.
        without_findings: rows without a finding: answers of a teacher that were cut off.
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
        self.rows = self.without_findings = 0
        self.checks: Counter[str] = Counter()
        self.shown: list[DroppedRow] = []

    def __enter__(self) -> "InvalidRows":
        self._files.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        # If reading fails, the findings so far are kept as well.
        self._files.close()

    def add(self, row: InvalidRow) -> None:
        """Record an invalid row."""
        if self._findings is None or self._dropped is None:
            self._findings = self._files.enter_context(open_atomically(self._folder / FINDINGS_FILE))
            self._dropped = self._files.enter_context(open_atomically(self._folder / DROPPED_FILE))
        self.rows += 1
        self.without_findings += not row.findings
        self.checks.update({finding.check for finding in row.findings})
        self._count += len(row.findings)
        self._first += (
            row.findings[: SHOWN_FINDINGS - len(self._first)] if len(self._first) < SHOWN_FINDINGS else ()
        )
        for finding in row.findings:
            self._findings.write(_line(finding.to_dict()))
        reasons = [str(finding) for finding in row.findings]
        self._dropped.write(_line({"file": row.file, "line": row.line, "reasons": reasons, "row": row.row}))
        if len(self.shown) < MAX_DROPPED:
            place = RowPlace(file=row.file, line=row.line)
            text = excerpt(json.dumps(row.row, ensure_ascii=False)) if row.row is not None else ""
            self.shown.append(DroppedRow(place=place, reasons=tuple(reasons), excerpt=text))

    def exceed_limit(self, config: PrepareConfig, rows: int) -> bool:
        """True if there are more invalid rows than the run allows.

        Args:
            rows: all rows, these included.
        """
        if config.on_invalid_row is OnInvalidRow.FAIL:
            return self._count > 0
        return self._count > 0 and self.rows > config.max_invalid_fraction * rows

    def require_within_limit(self, config: PrepareConfig, rows: int) -> None:
        """Fail if there are more invalid rows than the run allows.

        Raises:
            DataError: with the first findings and their number.
        """
        if not self.exceed_limit(config, rows):
            return
        if config.on_invalid_row is OnInvalidRow.FAIL:
            raise_findings(self._first, count=self._count)
        self._raise_too_many(rows, config.max_invalid_fraction)

    def describe(self, config: PrepareConfig, rows: int) -> Issue | None:
        """Issue for invalid rows; None if there are none."""
        if not self._count:
            return None
        checks = ", ".join(f"{check} in {count:,}" for check, count in self.checks.most_common(_NAMED))
        refused = self.exceed_limit(config, rows)
        return Issue(
            check="invalid_rows",
            severity=Severity.ERROR if refused else Severity.WARNING,
            rows=self.rows,
            message=f"{self.rows:,} of {rows:,} rows fail a check: {checks}",
            advice="correct them, or set onInvalidRow: Drop and maxInvalidFraction"
            if refused
            else "they are left out: correct those that should be learned",
            examples=tuple(
                Example(
                    place=dropped.place,
                    excerpt=dropped.excerpt,
                    detail="; ".join(dropped.reasons)[:_DETAIL_CHARACTERS],
                )
                for dropped in self.shown[:MAX_EXAMPLES]
            ),
        )

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
