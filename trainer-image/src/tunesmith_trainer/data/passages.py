"""Divides plain text into passages, the rows of continued pre-training."""

from collections.abc import Iterator

#: About 2,000 tokens of English: long enough to hold a context, short enough to hold some out for validation.
PASSAGE_CHARACTERS = 8_000

_SUFFIXES = (".txt", ".md")


def is_text_file(name: str) -> bool:
    """Whether a file's name says that it holds plain text."""
    return name.lower().removesuffix(".gz").endswith(_SUFFIXES)


def divide_text(text: str, characters: int = PASSAGE_CHARACTERS) -> Iterator[tuple[int, str]]:
    """Passages of whole paragraphs, each with the line it begins on, counted from 1.

    Nothing but white space between passages is lost. A paragraph longer than ``characters`` is a passage of its own.
    """
    passage: list[str] = []
    begin = length = 0
    for line, paragraph in _paragraphs(text):
        if passage and length + len(paragraph) > characters:
            yield begin, "\n\n".join(passage)
            passage, length = [], 0
        if not passage:
            begin = line
        passage.append(paragraph)
        length += len(paragraph)
    if passage:
        yield begin, "\n\n".join(passage)


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """What blank lines divide, with the line it begins on."""
    lines: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), "\n".join(lines)
            lines = []
