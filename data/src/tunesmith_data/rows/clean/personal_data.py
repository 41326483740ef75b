"""Finds, reports and masks what belongs to people: addresses of mail and devices, numbers, and keys.

Names and postal addresses are not looked for: nothing finds them reliably without a language model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import re2

from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity, excerpt
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import whole_text
from tunesmith_data.rows.table.record import Record

from .recognizers import LONG_NUMBER, Recognizers
from .secret_keys import MARKS, KeyFinder


class Kind(StrEnum):
    """What was found; where it was masked, its name stands in angle brackets."""

    KEY = "KEY"
    EMAIL = "EMAIL"
    CARD = "CARD"
    IBAN = "IBAN"
    IP_ADDRESS = "IP_ADDRESS"
    SSN = "SSN"
    PHONE = "PHONE"


_WORDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.KEY: "keys or passwords",
        Kind.EMAIL: "e-mail addresses",
        Kind.CARD: "payment card numbers",
        Kind.IBAN: "bank account numbers",
        Kind.IP_ADDRESS: "IP addresses",
        Kind.SSN: "social security numbers",
        Kind.PHONE: "phone numbers",
    }
)

# Members of a row in which nobody writes.
_FIXED = frozenset({"role", "tools"})
_BEFORE = 60


@dataclass(frozen=True, slots=True)
class Span:
    """Where something personal stands in a text: from ``start`` up to ``end``."""

    kind: Kind
    start: int
    end: int


class PersonalDataFinder:
    """Finds personal data in texts and rows."""

    def __init__(self) -> None:
        self._recognizers = Recognizers()
        self._keys = KeyFinder()
        # RE2 searches for all of it in one pass: a text that holds nothing costs a few microseconds.
        self._marks = re2.compile(MARKS)
        self._long_number = re2.compile(LONG_NUMBER)

    def find(self, text: str) -> list[Span]:
        """What is personal in a text, in order; nothing overlaps."""
        spans: list[Span] = []
        # Of those that overlap the first in the order of kinds is kept: a key may hold what looks like a number.
        for span in self._candidates(text):
            if all(span.end <= other.start or span.start >= other.end for other in spans):
                spans.append(span)
        return sorted(spans, key=lambda span: span.start)

    def mask(self, text: str) -> tuple[str, Counter[Kind]]:
        """The text with ``<KIND>`` in the place of what is personal, and how often each kind was found."""
        parts, begin = [], 0
        spans = self.find(text)
        for span in spans:
            parts += [text[begin : span.start], f"<{span.kind}>"]
            begin = span.end
        return "".join([*parts, text[begin:]]), Counter(span.kind for span in spans)

    def mask_row(self, row: Row) -> tuple[Row, Counter[Kind]]:
        """The row with its texts masked, arguments of tools too, and how often each kind was found."""
        found: Counter[Kind] = Counter()
        masked = self._mask_value(row, found)
        return (masked if found else row), found

    def _mask_value(self, value: Any, found: Counter[Kind]) -> Any:
        if isinstance(value, str):
            masked, kinds = self.mask(value)
            found.update(kinds)
            return masked
        if isinstance(value, dict):
            return {
                key: each if key in _FIXED else self._mask_value(each, found) for key, each in value.items()
            }
        if isinstance(value, list):
            return [self._mask_value(each, found) for each in value]
        return value

    def _candidates(self, text: str) -> Iterator[Span]:
        find = self._recognizers
        searched = text.encode("utf-8", "replace")
        finders = {Kind.KEY: self._keys.find} if self._marks.search(searched) else {}
        if "@" in text:
            finders[Kind.EMAIL] = find.emails
        if self._long_number.search(searched):
            numbers = {Kind.CARD: find.cards, Kind.IBAN: find.ibans, Kind.IP_ADDRESS: find.addresses}
            finders |= numbers | {Kind.SSN: find.security_numbers, Kind.PHONE: find.phones}
        elif text.count(":") > 1:
            finders[Kind.IP_ADDRESS] = find.addresses
        for kind, finder in finders.items():
            yield from (Span(kind, *span) for span in finder(text))


class PersonalData:
    """The check ``personal_data``: which rows hold personal data, and of which kinds.

    What it says never holds what it found: excerpts are masked.

    Args:
        finder: finds it.
        masked: the rows are masked already by ``mask_row``, and noted by ``note``.
    """

    def __init__(self, finder: PersonalDataFinder, *, masked: bool = False) -> None:
        self._finder = finder
        self._masked = masked
        self._rows = 0
        self._kinds: Counter[Kind] = Counter()
        self._examples: list[Example] = []

    def see(self, records: Sequence[Record]) -> None:
        """Take the next rows into account."""
        for record in records:
            row, found = self._finder.mask_row(record.row)
            if found:
                self.note(record, row, found)

    def note(self, record: Record, masked: Row, found: Counter[Kind]) -> None:
        """Take a row into account, of which ``mask_row`` has made another one."""
        self._rows += 1
        self._kinds.update(list(found))
        if len(self._examples) < MAX_EXAMPLES:
            detail = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in sorted(found.items()))
            shown = _beginning_near(whole_text(masked), [f"<{kind}>" for kind in found])
            self._examples.append(Example(place=record.place, excerpt=excerpt(shown), detail=detail))

    def finish(self) -> Iterator[Issue]:
        """What there is to say of all rows."""
        if not self._rows:
            return
        kinds = ", ".join(f"{_WORDS[kind]} in {count:,}" for kind, count in self._kinds.most_common())
        rows = "1 row" if self._rows == 1 else f"{self._rows:,} rows"
        hold = "holds" if self._rows == 1 else "hold"
        what = "held personal data, which is masked" if self._masked else f"{hold} personal data"
        advice = (
            "look through the examples: what is masked is not learned"
            if self._masked
            else "a model may repeat what it was trained on: set personalData to Mask, or take it out"
        )
        yield Issue(
            check="personal_data",
            severity=Severity.NOTE if self._masked else Severity.WARNING,
            rows=self._rows,
            message=f"{rows} {what}: {kinds}",
            advice=advice,
            examples=tuple(self._examples),
        )


def _beginning_near(text: str, marks: Sequence[str]) -> str:
    """The text from a little before the first mark on."""
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    begin = max(0, min(places, default=0) - _BEFORE)
    return text[begin:]
