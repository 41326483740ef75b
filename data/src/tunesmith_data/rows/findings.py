"""What checks say: of one row that can't be learned from, and of the data as a whole."""

import json
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from tunesmith_contract.base import Document

#: Examples of an issue that the report holds.
MAX_EXAMPLES = 20
#: Characters of a row that are shown.
EXCERPT_CHARACTERS = 240
#: Characters of what was found that a message holds.
_FOUND_CHARACTERS = 60


class Place(Document):
    """Where a row is written.

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
class Problem:
    """A finding before it has a place: the check's name, what was found, what to write instead.

    Attributes:
        check: the check's name.
        found: what was found.
        advice: what to write instead.
        member: the path of the member in the row, such as ``messages[2].role``.
        column: the character in the line, counted from 1, where it is known.
    """

    check: str
    found: str
    advice: str
    member: str = ""
    column: int | None = None

    def at(self, file: str, line: int) -> "Finding":
        """The finding in a file."""
        return Finding(Place(file=file, line=line, column=self.column, member=self.member), self)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one row, and where."""

    place: Place
    problem: Problem

    def to_dict(self) -> dict[str, object]:
        """Place and problem as one JSON object, for ``findings.jsonl``."""
        return self.place.to_dict() | {
            "check": self.problem.check,
            "found": self.problem.found,
            "advice": self.problem.advice,
        }

    def __str__(self) -> str:
        problem = self.problem
        member = f"{problem.member}: " if problem.member else ""
        return f"{self.place}: {problem.check}: {member}found {problem.found}; {problem.advice}"


class Severity(StrEnum):
    """How much an issue matters, the gravest first."""

    ERROR = "Error"
    WARNING = "Warning"
    NOTE = "Note"


class Example(Document):
    """A row of which an issue speaks.

    Attributes:
        place: where it is written.
        excerpt: the beginning of what it says.
        detail: what is odd about it, such as ``prompt en, answer de``.
        other, other_excerpt: the row that it is compared with.
        score: how sure the check is, or how alike the rows are, from 0 to 1.
    """

    place: Place
    excerpt: str
    detail: str = ""
    other: Place | None = None
    other_excerpt: str = ""
    score: float | None = None


class Issue(Document):
    """What a check says of the data.

    Attributes:
        check: its name, such as ``contradicting_answers``.
        severity: how much it matters.
        rows: how many rows it concerns.
        message: a sentence that says what was found, with the number.
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
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * EXCERPT_CHARACTERS].split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"


def quote(value: object) -> str:
    """A value as JSON, cut to what fits a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_CHARACTERS else text[: _FOUND_CHARACTERS - 1] + "…"
