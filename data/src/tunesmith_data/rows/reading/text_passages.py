"""Division of plain text into passages, the rows of continued pre-training."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.parsing.encodings import EncodingGuess, check_utf8

from .lines import Entries, read_lines

#: About 2,000 tokens of English: long enough to hold a context, short enough to hold some out for validation.
PASSAGE_CHARACTERS = 8_000

_HEADING = re.compile(r"#{1,6}\s")
_FENCES = ("```", "~~~")

#: Number of a line, and its text or a Finding.
_Line = tuple[int, str | Finding]


def read_passages(chunks: Iterator[bytes], *, markdown: bool = False) -> Entries:
    """Passages of a text as rows; an unreadable line is a separate entry."""
    for line, passage in divide_lines(_decoded(read_lines(chunks)), markdown=markdown):
        yield line, passage if isinstance(passage, Finding) else {"text": passage}


def divide_lines(
    lines: Iterable[_Line], characters: int = PASSAGE_CHARACTERS, *, markdown: bool = False
) -> Iterator[_Line]:
    """Passages of whole paragraphs, each with the line it begins on, counted from 1.

    Nothing but white space between passages is lost. A paragraph of up to twice as many characters is a passage of its
    own; a longer one is divided between lines, and a longer line between words. In Markdown a heading begins a passage
    where the one before is half full, and never ends one.
    """
    passage = _Passage()
    for paragraph in _paragraphs(lines, 2 * characters, markdown=markdown):
        if paragraph.finding:
            yield from passage.take()
            yield paragraph.line, paragraph.finding
            continue
        full = characters // 2 if paragraph.heading else characters - len(paragraph.text)
        if passage.length > full:
            yield from passage.take(keep_heading=True)
        passage.add(paragraph)
    yield from passage.take()


@dataclass(frozen=True, slots=True)
class _Paragraph:
    """Paragraph between blank lines.

    Attributes:
        line: where it begins.
        heading: it begins with a heading of Markdown.
        bare: and is nothing else.
        finding: it is a line that cannot be read.
    """

    line: int
    text: str = ""
    heading: bool = False
    bare: bool = False
    finding: Finding | None = None


@dataclass(slots=True)
class _Passage:
    """Passage in progress."""

    paragraphs: list[_Paragraph] = field(default_factory=list)
    length: int = 0

    def add(self, paragraph: _Paragraph) -> None:
        self.paragraphs.append(paragraph)
        self.length += len(paragraph.text)

    def take(self, *, keep_heading: bool = False) -> Iterator[_Line]:
        """Yield the passage and start a new one, with the last heading if ``keep_heading``."""
        kept: list[_Paragraph] = []
        while keep_heading and len(self.paragraphs) > 1 and self.paragraphs[-1].bare:
            kept.insert(0, self.paragraphs.pop())
        if self.paragraphs:
            yield self.paragraphs[0].line, "\n\n".join(paragraph.text for paragraph in self.paragraphs)
        self.paragraphs, self.length = [], 0
        for paragraph in kept:
            self.add(paragraph)


def _decoded(lines: Iterable[tuple[int, bytes | Finding]]) -> Iterator[_Line]:
    guess = EncodingGuess()
    for number, line in lines:
        if isinstance(line, Finding):
            yield number, line
        else:
            yield number, check_utf8(line, guess) or line.decode().removesuffix("\r")


@dataclass(slots=True)
class _OpenParagraph:
    """Paragraph in progress."""

    begin: int = 0
    heading: bool = False
    lines: list[str] = field(default_factory=list)
    length: int = 0

    def add(self, number: int, text: str, heading: bool) -> None:
        if not self.lines:
            self.begin, self.heading = number, heading
        self.lines.append(text)
        self.length += len(text)

    def end(self) -> Iterator[_Paragraph]:
        if self.lines:
            bare = self.heading and len(self.lines) == 1
            yield _Paragraph(self.begin, "\n".join(self.lines), self.heading, bare)
        self.lines, self.length = [], 0


def _paragraphs(lines: Iterable[_Line], longest: int, *, markdown: bool) -> Iterator[_Paragraph]:
    paragraph, fenced = _OpenParagraph(), False
    for number, line in lines:
        text = "" if isinstance(line, Finding) else line
        heading = markdown and not fenced and _HEADING.match(text) is not None
        # What looks like a heading within code is none.
        fenced ^= markdown and text.lstrip().startswith(_FENCES)
        if not text.strip() or heading or paragraph.length + len(text) > longest:
            yield from paragraph.end()
        if isinstance(line, Finding):
            yield _Paragraph(number, finding=line)
        elif text.strip():
            *whole, rest = filter(str.strip, _divide_line(text, longest))
            yield from (_Paragraph(number, piece) for piece in whole)
            paragraph.add(number, rest, heading)
    yield from paragraph.end()


def _divide_line(text: str, longest: int) -> Iterator[str]:
    """Pieces of limited length, divided between words if possible."""
    begin = 0
    while len(text) - begin > longest:
        end = text.rfind(" ", begin + 1, begin + longest)
        end = end if end > 0 else begin + longest
        yield text[begin:end]
        begin = end
    yield text[begin:]
