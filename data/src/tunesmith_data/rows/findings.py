"""Findings for one row, and issues for the data as a whole."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import Field

from tunesmith_contract.base import Document

#: Maximum number of examples of an issue in the report.
MAX_EXAMPLES = 20
#: Characters of a row that are shown.
EXCERPT_CHARACTERS = 240
#: Characters of what was found that a message quotes.
_FOUND_CHARACTERS = 60


class RowPlace(Document):
    """Place of a row in a file.

    Attributes:
        file: the file's name.
        line: where the row begins, counted from 1; of a table, the record's number.
        column: the character in that line, counted from 1, where it is known.
        member: the path of a member in the row, such as ``messages[2].role``, or a column's name.
    """

    file: str
    line: int
    column: int | None = None
    member: str = ""

    def __str__(self) -> str:
        column = f":{self.column}" if self.column else ""
        return f"{self.file}:{self.line}{column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check for one row: place, what was found, what to write instead.

    Attributes:
        check: the check's name.
        found: what was found.
        advice: what to write instead.
        member: the path of the member in the row, such as ``messages[2].role``.
        column: the character in the line, counted from 1, where it is known.
        file, line: where the row begins; empty until ``at`` sets them.
    """

    check: str
    found: str
    advice: str
    member: str = ""
    column: int | None = None
    file: str = ""
    line: int = 0

    def at(self, file: str, line: int) -> "Finding":
        """The finding with its place."""
        return replace(self, file=file, line=line)

    @property
    def place(self) -> RowPlace:
        """Place of what was found."""
        return RowPlace(file=self.file, line=self.line, column=self.column, member=self.member)

    def to_dict(self) -> dict[str, object]:
        """The finding as one JSON object, for ``findings.jsonl``."""
        return self.place.to_dict() | {"check": self.check, "found": self.found, "advice": self.advice}

    def __str__(self) -> str:
        member = f"{self.member}: " if self.member else ""
        return f"{self.place}: {self.check}: {member}found {self.found}; {self.advice}"


class Severity(StrEnum):
    """Severity of an issue, most severe first."""

    ERROR = "Error"
    WARNING = "Warning"
    NOTE = "Note"


class Example(Document):
    """Example row of an issue.

    Attributes:
        place: place of the row.
        excerpt: beginning of the row's text.
        detail: reason of the issue for this row, such as ``prompt en, answer de``.
        other, other_excerpt: the row that it is compared with.
        score: certainty of the check, or similarity of the rows, from 0 to 1.
    """

    place: RowPlace
    excerpt: str
    detail: str = ""
    other: RowPlace | None = None
    other_excerpt: str = ""
    score: float | None = None


class Issue(Document):
    """Result of a check for the data as a whole.

    Attributes:
        check: its name, such as ``contradicting_answers``.
        severity: severity of the issue.
        rows: number of rows concerned.
        message: a sentence with the number of rows.
        advice: what to do.
        examples: the worst rows first.
    """

    check: str
    severity: Severity
    rows: int = Field(ge=0)
    message: str
    advice: str
    examples: tuple[Example, ...] = Field((), max_length=MAX_EXAMPLES)


def excerpt(text: str) -> str:
    """Beginning of a text, on one line."""
    line = " ".join(text[: 4 * EXCERPT_CHARACTERS].split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"


def quote(value: object) -> str:
    """A value as JSON, cut to what fits a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_CHARACTERS else text[: _FOUND_CHARACTERS - 1] + "…"
