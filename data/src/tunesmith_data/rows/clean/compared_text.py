"""What two rows are compared by: their texts without case, white space and punctuation, and what has to be the same."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tunesmith_contract.base import canonical_json
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text, rejected_text
from tunesmith_data.rows.table.record import Record

#: Bytes up to which an answer has to be the same, not only alike: about eight words, or a label, a number, a name.
SHORT_ANSWER = 48

# What a sentence is punctuated with. Other signs stay: C is not C#, and a + b not a * b.
_PUNCTUATION = r".,;:!?'\"“”‘’„«»‹›…¿¡()\[\]{}\-‐‑‒–—、。「」『』【】《》·`"  # noqa: RUF001
_TOKEN = re.compile(rf"\w+|[^\w\s{_PUNCTUATION}]")
_DIGITS = re.compile(r"\d+")
_MINUS = "-−"  # noqa: RUF001 (the minus sign of typesetters)


#: Fetches records by their indexes, in the order asked for.
RecordsOf = Callable[[Sequence[int]], Sequence[Record]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A row, ready to be compared.

    Attributes:
        texts: question, answer and rejected answer, or the one text; normalised, as UTF-8. Absent ones are empty.
        key: rows with different keys are different rows, however alike their texts are. It holds the numbers of
            question and answer, the system's message, calls of tools, the label, and answers as short as a label.
    """

    texts: tuple[bytes, ...]
    key: int


def parts_of(row: Row) -> Parts:
    """A canonical row's parts."""
    if "text" in row:
        return Parts((normalise(row["text"]),), 0)
    question, *answers = prompt_text(row), answer_text(row), rejected_text(row)
    texts = (normalise(question), *(normalise(answer) for answer in answers))
    short = [text.decode() if len(text) <= SHORT_ANSWER else "" for text in texts[1:]]
    same = [numbers(question), [numbers(answer) for answer in answers], short, row.get("label"), *_apart(row)]
    return Parts(texts, key_of(canonical_json(same)))


def question_of(row: Row) -> str:
    """What identifies an item: what is asked, or the text where nothing is."""
    return prompt_text(row) or answer_text(row)


def normalise(text: str) -> bytes:
    """A text's words and signs with one space between them: NFKC, no case, no punctuation, as UTF-8."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_TOKEN.findall(folded)).encode("utf-8", "replace")


def numbers(text: str) -> list[str]:
    """The runs of digits in a text, with their minus sign, sorted: a sentence may be turned round."""
    return sorted(_sign(text, run.start()) + run[0] for run in _DIGITS.finditer(text))


def _sign(text: str, begin: int) -> str:
    """The minus sign of the number that begins there; in 2010-2020 there is none."""
    negative = text[begin - 1 : begin] in _MINUS if begin else False
    return "-" if negative and not text[begin - 2 : begin - 1].isalnum() else ""


def key_of(content: bytes) -> int:
    """A number of 64 bits that stands for the content."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def _apart(row: Row) -> Iterator[object]:
    """What is no text of question or answer, and makes a row another one."""
    yield row.get("tools")
    for messages in (row.get(name) for name in ("messages", "prompt", "completion", "chosen", "rejected")):
        if isinstance(messages, list):
            yield [message["content"] for message in messages if message["role"] == "system"]
            yield [message["tool_calls"] for message in messages if message.get("tool_calls")]
