"""Personal data: detection, masking, and the check ``personal_data``.

Names and postal addresses are not detected: nothing finds them reliably without a language model.
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
from .secret_keys import MARKS, SecretKeyFinder


class PersonalDataKind(StrEnum):
    """Kind of personal data; masked text shows it in angle brackets."""

    KEY = "KEY"
    EMAIL = "EMAIL"
    CARD = "CARD"
    IBAN = "IBAN"
    IP_ADDRESS = "IP_ADDRESS"
    SSN = "SSN"
    PHONE = "PHONE"


_WORDS: Mapping[PersonalDataKind, str] = MappingProxyType(
    {
        PersonalDataKind.KEY: "keys or passwords",
        PersonalDataKind.EMAIL: "e-mail addresses",
        PersonalDataKind.CARD: "payment card numbers",
        PersonalDataKind.IBAN: "bank account numbers",
        PersonalDataKind.IP_ADDRESS: "IP addresses",
        PersonalDataKind.SSN: "social security numbers",
        PersonalDataKind.PHONE: "phone numbers",
    }
)

# Members of a row without text of users.
_FIXED = frozenset({"role", "tools"})
_BEFORE = 60


@dataclass(frozen=True, slots=True)
class Span:
    """Span of personal data in a text, from ``start`` up to ``end``."""

    kind: PersonalDataKind
    start: int
    end: int


class PersonalDataFinder:
    """Finder of personal data in texts and rows."""

    def __init__(self) -> None:
        self._recognizers = Recognizers()
        self._keys = SecretKeyFinder()
        # RE2 searches for all of it in one pass: a text that holds nothing costs a few microseconds.
        self._marks = re2.compile(MARKS)
        self._long_number = re2.compile(LONG_NUMBER)

    def find(self, text: str) -> list[Span]:
        """Spans of personal data in a text, sorted, without overlaps.

        Masking shortens the text, which may bring a word that speaks of a phone near to another number. So the masked
        text is searched as well, until nothing more is found.
        """
        spans = self._find_once(text)
        more = spans
        while more:
            masked, marks = _mask(text, spans)
            more = [
                Span(span.kind, _original(span.start, marks), _original(span.end, marks))
                for span in self._find_once(masked)
            ]
            # Each new span covers text that none covered before, so this ends; one inside a mark covers nothing.
            more = [
                span
                for span in more
                if span.start < span.end
                and all(span.end <= other.start or span.start >= other.end for other in spans)
            ]
            spans = sorted([*spans, *more], key=lambda span: span.start)
        return spans

    def _find_once(self, text: str) -> list[Span]:
        spans: list[Span] = []
        # Of those that overlap the first in the order of kinds is kept: a key may hold what looks like a number.
        for span in self._candidates(text):
            if all(span.end <= other.start or span.start >= other.end for other in spans):
                spans.append(span)
        return sorted(spans, key=lambda span: span.start)

    def mask(self, text: str) -> tuple[str, Counter[PersonalDataKind]]:
        """The text with personal data replaced by ``<KIND>``, and the number of replacements by kind."""
        spans = self.find(text)
        return _mask(text, spans)[0], Counter(span.kind for span in spans)

    def mask_row(self, row: Row) -> tuple[Row, Counter[PersonalDataKind]]:
        """The row with its texts and tool arguments masked, and the number of replacements by kind."""
        kinds: Counter[PersonalDataKind] = Counter()
        masked = self._mask_value(row, kinds)
        return (masked if kinds else row), kinds

    def _mask_value(self, value: Any, counts: Counter[PersonalDataKind]) -> Any:
        if isinstance(value, str):
            masked, kinds = self.mask(value)
            counts.update(kinds)
            return masked
        if isinstance(value, dict):
            return {
                key: member if key in _FIXED else self._mask_value(member, counts)
                for key, member in value.items()
            }
        if isinstance(value, list):
            return [self._mask_value(item, counts) for item in value]
        return value

    def _candidates(self, text: str) -> Iterator[Span]:
        find = self._recognizers
        searched = text.encode("utf-8", "replace")
        finders = {PersonalDataKind.KEY: self._keys.find} if self._marks.search(searched) else {}
        if "@" in text:
            finders[PersonalDataKind.EMAIL] = find.emails
        if self._long_number.search(searched):
            numbers = {
                PersonalDataKind.CARD: find.cards,
                PersonalDataKind.IBAN: find.ibans,
                PersonalDataKind.IP_ADDRESS: find.addresses,
            }
            finders |= numbers | {
                PersonalDataKind.SSN: find.security_numbers,
                PersonalDataKind.PHONE: find.phones,
            }
        elif text.count(":") > 1:
            finders[PersonalDataKind.IP_ADDRESS] = find.addresses
        for kind, finder in finders.items():
            yield from (Span(kind, *span) for span in finder(text))


@dataclass(frozen=True, slots=True)
class _Mark:
    """Place of a mark in a masked text, with the span that it replaces."""

    start: int
    end: int
    span: Span


def _mask(text: str, spans: Sequence[Span]) -> tuple[str, list[_Mark]]:
    """The text with a mark for each of its sorted spans, and the marks."""
    masked, begin = "", 0
    marks: list[_Mark] = []
    for span in spans:
        masked += text[begin : span.start]
        mark = f"<{span.kind}>"
        marks.append(_Mark(len(masked), len(masked) + len(mark), span))
        masked += mark
        begin = span.end
    return masked + text[begin:], marks


def _original(position: int, marks: Sequence[_Mark]) -> int:
    """The position in the text before it was masked; inside a mark, the start of what the mark replaces."""
    shift = 0
    for mark in marks:
        if position <= mark.start:
            break
        if position < mark.end:
            return mark.span.start
        shift = mark.span.end - mark.end
    return position + shift


class PersonalDataCheck:
    """Check ``personal_data``: rows with personal data, by kind.

    Its issue contains no personal data: excerpts are masked.

    Args:
        finder: the finder of personal data.
        masked: the rows were masked by ``mask_row`` already, and are counted by ``note``.
    """

    def __init__(self, finder: PersonalDataFinder, *, masked: bool = False) -> None:
        self._finder = finder
        self._masked = masked
        self._rows = 0
        self._kinds: Counter[PersonalDataKind] = Counter()
        self._examples: list[Example] = []

    def update(self, records: Sequence[Record]) -> None:
        """Add the next rows."""
        for record in records:
            row, kinds = self._finder.mask_row(record.row)
            if kinds:
                self.note(record, row, kinds)

    def note(self, record: Record, masked: Row, kinds: Counter[PersonalDataKind]) -> None:
        """Count a row that ``mask_row`` has changed."""
        self._rows += 1
        self._kinds.update(list(kinds))
        if len(self._examples) < MAX_EXAMPLES:
            detail = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in sorted(kinds.items()))
            shown = _text_from_mark(whole_text(masked), [f"<{kind}>" for kind in kinds])
            self._examples.append(Example(place=record.place, excerpt=excerpt(shown), detail=detail))

    def finish(self) -> Iterator[Issue]:
        """Issue for all rows with personal data."""
        if not self._rows:
            return
        kinds = ", ".join(f"{_WORDS[kind]} in {count:,}" for kind, count in self._kinds.most_common())
        rows = "1 row" if self._rows == 1 else f"{self._rows:,} rows"
        hold = "holds" if self._rows == 1 else "hold"
        statement = "contained personal data, which is masked" if self._masked else f"{hold} personal data"
        advice = (
            "check the examples: masked text is not learned"
            if self._masked
            else "a model may repeat what it was trained on: set personalData to Mask, or take it out"
        )
        yield Issue(
            check="personal_data",
            severity=Severity.NOTE if self._masked else Severity.WARNING,
            rows=self._rows,
            message=f"{rows} {statement}: {kinds}",
            advice=advice,
            examples=tuple(self._examples),
        )


def _text_from_mark(text: str, marks: Sequence[str]) -> str:
    """Text from shortly before the first mark."""
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    begin = max(0, min(places, default=0) - _BEFORE)
    return text[begin:]


#: Members of reports that quote rows or annotators' comments.
_QUOTING = frozenset({"excerpt", "otherExcerpt", "detail", "reasons", "comments"})


def mask_quotations(value: Any, finder: PersonalDataFinder) -> Any:
    """JSON document with personal data masked in its excerpts."""
    if isinstance(value, list):
        return [mask_quotations(item, finder) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: finder.mask_row({"text": member})[0]["text"]
        if name in _QUOTING
        else mask_quotations(member, finder)
        for name, member in value.items()
    }
