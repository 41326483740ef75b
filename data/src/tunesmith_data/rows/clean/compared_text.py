"""Normalized texts by which rows are compared, and a key of what must be equal."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tunesmith_contract.base import canonical_json
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text, rejected_text
from tunesmith_data.rows.table.record import Record

#: Bytes up to which an answer has to be equal, not only similar: about eight words, or a label, a number, a name.
SHORT_ANSWER = 48

# Punctuation marks. Other signs stay: C is not C#, and a + b not a * b.
_PUNCTUATION = r".,;:!?'\"“”‘’„«»‹›…¿¡()\[\]{}\-‐‑‒–—、。「」『』【】《》·`"  # noqa: RUF001
_TOKEN = re.compile(rf"\w+|[^\w\s{_PUNCTUATION}]")
_DIGITS = re.compile(r"\d+")
_MINUS = "-−"  # noqa: RUF001 (the minus sign of typesetters)


#: Function that returns records by their indexes, in the requested order.
RecordsOf = Callable[[Sequence[int]], Sequence[Record]]


@dataclass(frozen=True, slots=True)
class RowParts:
    """Normalized texts and key of a row.

    Attributes:
        texts: question, answer and rejected answer, or the one text; normalized, as UTF-8. Absent ones are empty.
        key: rows with different keys are different, however similar their texts are. It covers the numbers of
            question and answer, the system's message, calls of tools, the label, and answers as short as a label.
    """

    texts: tuple[bytes, ...]
    key: int


def row_parts(row: Row) -> RowParts:
    """Normalized texts and key of a canonical row."""
    if "text" in row:
        return RowParts((normalize(row["text"]),), 0)
    question, *answers = prompt_text(row), answer_text(row), rejected_text(row)
    texts = (normalize(question), *(normalize(answer) for answer in answers))
    short = [text.decode() if len(text) <= SHORT_ANSWER else "" for text in texts[1:]]
    same = [
        numbers(question),
        [numbers(answer) for answer in answers],
        short,
        row.get("label"),
        *_distinguishing_members(row),
    ]
    return RowParts(texts, content_key(canonical_json(same)))


def identifying_text(row: Row) -> str:
    """Text that identifies a row: its question, or its text if there is none."""
    return prompt_text(row) or answer_text(row)


def normalize(text: str) -> bytes:
    """A text's words and signs with one space between them: NFKC, no case, no punctuation, as UTF-8."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_TOKEN.findall(folded)).encode("utf-8", "replace")


def numbers(text: str) -> list[str]:
    """The runs of digits in a text, with their minus sign, sorted, since the order of words may differ."""
    return sorted(_sign(text, run.start()) + run[0] for run in _DIGITS.finditer(text))


def _sign(text: str, begin: int) -> str:
    """Minus sign of the number at a position; empty for a range such as 2010-2020."""
    negative = text[begin - 1 : begin] in _MINUS if begin else False
    return "-" if negative and not text[begin - 2 : begin - 1].isalnum() else ""


def content_key(content: bytes) -> int:
    """64-bit hash of the content."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def _distinguishing_members(row: Row) -> Iterator[object]:
    """Other members that distinguish rows: tools, system messages, tool calls."""
    yield row.get("tools")
    for messages in (row.get(name) for name in ("messages", "prompt", "completion", "chosen", "rejected")):
        if isinstance(messages, list):
            yield [message["content"] for message in messages if message["role"] == "system"]
            yield [message["tool_calls"] for message in messages if message.get("tool_calls")]
