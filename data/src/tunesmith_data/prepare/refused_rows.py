"""What failed a check: written down as it is found, and counted."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith_contract.layout import DROPPED_FILE, FINDINGS_FILE
from tunesmith_contract.run_config import OnInvalidRow, PrepareConfig
from tunesmith_data.failures import DataError
from tunesmith_data.pod.storage import open_atomically
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Finding, Issue, Place, Severity, excerpt
from tunesmith_data.rows.reading import RefusedRow, raise_findings
from tunesmith_data.rows.reading.read_errors import SHOWN_FINDINGS
from tunesmith_data.rows.report.data_report import MAX_DROPPED, Dropped

_NAMED = 4
_DETAIL_CHARACTERS = 300


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
        # Where reading breaks off, what was found until then is worth as much.
        self._files.close()

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

    def are_too_many(self, config: PrepareConfig, rows: int) -> bool:
        """Whether there are more than the run allows.

        Args:
            rows: all rows, these included.
        """
        if config.on_invalid_row is OnInvalidRow.FAIL:
            return self._count > 0
        return self._count > 0 and self.rows > config.max_invalid_fraction * rows

    def require_few(self, config: PrepareConfig, rows: int) -> None:
        """Fail where there are more than the run allows.

        Raises:
            DataError: with the first findings and their number.
        """
        if not self.are_too_many(config, rows):
            return
        if config.on_invalid_row is OnInvalidRow.FAIL:
            raise_findings(self._first, count=self._count)
        self._raise_too_many(rows, config.max_invalid_fraction)

    def describe(self, config: PrepareConfig, rows: int) -> Issue | None:
        """What there is to say of them; None where there are none."""
        if not self._count:
            return None
        checks = ", ".join(f"{check} in {count:,}" for check, count in self.checks.most_common(_NAMED))
        refused = self.are_too_many(config, rows)
        return Issue(
            check="invalid_rows",
            severity=Severity.ERROR if refused else Severity.WARNING,
            rows=self.rows,
            message=f"{self.rows:,} of {rows:,} rows fail a check: {checks}",
            advice="mend them, or write onInvalidRow: Drop and how many may be dropped, as maxInvalidFraction"
            if refused
            else "they are left out: mend those that should be learned",
            examples=tuple(
                Example(
                    place=each.place,
                    excerpt=each.excerpt,
                    detail="; ".join(each.reasons)[:_DETAIL_CHARACTERS],
                )
                for each in self.shown[:MAX_EXAMPLES]
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
