"""Items file (``items.jsonl``): every item of an evaluation with all answers and scores, one line each.

The file is also the form of stored answers: a side whose answers are a file is read from it, and scored anew without
generation. Each line is complete in itself, so files of several pods can be joined end to end:

.. code-block:: json

    {"version": 1, "suite": "tickets", "line": 7, "digest": "sha256:…", "messages": […], "expected": "billing",
     "answers": {"candidate": [{"text": "billing", "finishReason": "Stop", "promptTokens": 81, "tokens": 2,
                                "seconds": 0.04, "scores": {"ExactMatch": 1.0}}]}}

An answer is the model's raw text, thinking included. Where answers are repeated, a side has several per item.
Lines are read and written one at a time: memory does not grow with the file, but for one small entry per item in
:class:`StoredAnswers`.
"""

import codecs
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, ValidationError

from tunesmith_contract.base import Report, canonical_json
from tunesmith_data.failures import DataError
from tunesmith_storage.files import open_atomically

ITEMS_FILE = "items.jsonl"
ITEMS_VERSION: Literal[1] = 1

#: Bytes of a line; a longer one is no item.
MAX_LINE_BYTES = 64 * 2**20


class StoredAnswer(Report):
    """Answer of a side to an item.

    Attributes:
        text: the raw text, thinking included.
        finish_reason: ``Stop``, ``Length``, or a word of the endpoint; empty if it is not known.
        prompt_tokens: tokens of the prompt.
        tokens: tokens of the answer.
        seconds: time from the request to the end of the answer.
        tool_calls: calls of tools that the answer holds beside its text.
        scores: score by metric; absent in files that were not scored.
    """

    text: str
    finish_reason: str = ""
    prompt_tokens: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    seconds: float | None = Field(None, ge=0)
    tool_calls: tuple[dict[str, Any], ...] | None = None
    scores: dict[str, float] = Field(default_factory=dict)


class StoredItem(Report):
    """Item with the answers of all sides.

    Attributes:
        line: line in the suite's data; 0 if it has none.
        digest: digest of the item's row, by which answers are found again.
        messages: the conversation before the answer; None for plain text.
        prompt: the question as plain text; None for a conversation.
        expected: the expected answer.
        group: the group that the item belongs to, if items are grouped.
        excluded: why the item was not asked, such as ``Leaked``; empty if it was.
        problems: why a side has not answered, by name of the side.
        answers: answers by name of the side; several per side where answers are repeated.
    """

    version: Literal[1] = ITEMS_VERSION
    suite: str
    line: int = Field(0, ge=0)
    digest: str
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    expected: str = ""
    group: str | None = None
    excluded: str = ""
    problems: dict[str, str] = Field(default_factory=dict)
    answers: dict[str, tuple[StoredAnswer, ...]] = Field(default_factory=dict)


class ItemsWriter:
    """Writer of an items file.

    Attributes:
        size_bytes: size so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of what was written."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, item: StoredItem) -> None:
        """Append an item."""
        line = canonical_json(item.to_dict()) + b"\n"
        self._stream.write(line)
        self._hash.update(line)
        self.size_bytes += len(line)


@contextmanager
def open_items_file(path: Path) -> Iterator[ItemsWriter]:
    """Writer of a file that exists complete or not at all; its folder is created if it is missing."""
    with open_atomically(path) as stream:
        yield ItemsWriter(stream)


def read_items_file(path: Path) -> Iterator[StoredItem]:
    """Items of a file, one after the other.

    Raises:
        DataError: a line is not an item of this version.
    """
    with path.open("rb") as stream:
        for number, _, line in _lines(stream, path.name):
            yield _parse(line, path.name, number)


class StoredAnswers:
    """Answers of one side in an items file, looked up by suite and digest of the item.

    Args:
        path: the file; it must not change afterwards.
        side: name of the side in the file.

    Raises:
        DataError: a line is not an item, two lines answer the same item, or the file has no answer of the side.
    """

    def __init__(self, path: Path, side: str) -> None:
        self._side, self._path = side, path
        self._offsets: dict[tuple[str, str], tuple[int, int]] = {}
        others: set[str] = set()
        with path.open("rb") as stream:
            for number, offset, line in _lines(stream, path.name):
                item = _parse(line, path.name, number)
                others.update(item.answers)
                if item.answers.get(side):
                    self._add(item, number, offset)
        if not self._offsets:
            known = ", ".join(sorted(others)) or "no side"
            message = f"{path.name} holds no answer of side {side}: it has answers of {known}"
            raise DataError("InvalidAnswers", message)

    @property
    def suites(self) -> frozenset[str]:
        """Names of the suites that the side has answered."""
        return frozenset(suite for suite, _ in self._offsets)

    def __len__(self) -> int:
        """Number of items with an answer of the side."""
        return len(self._offsets)

    def find(self, suite: str, digest: str) -> tuple[StoredAnswer, ...]:
        """Answers to an item; none if the file has none.

        Args:
            suite: name of the suite when the answers were stored.
            digest: digest of the item.
        """
        place = self._offsets.get((suite, digest))
        if place is None:
            return ()
        number, offset = place
        with self._path.open("rb") as stream:
            stream.seek(offset)
            return _parse(stream.readline(), self._path.name, number).answers[self._side]

    def _add(self, item: StoredItem, number: int, offset: int) -> None:
        key = (item.suite, item.digest)
        if key in self._offsets:
            name = f"{self._path.name}:{number}"
            message = (
                f"{name}: a second line answers the item {item.digest} of {item.suite}: keep one of them"
            )
            raise DataError("InvalidAnswers", message)
        self._offsets[key] = (number, offset)


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of each line that is not blank, without a byte order mark."""
    number, offset = 0, 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            message = (
                f"{name}:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes: write one item per line"
            )
            raise DataError("InvalidAnswers", message)
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if content.strip():
            yield number, offset + len(line) - len(content), content
        offset += len(line)


def _parse(line: bytes, name: str, number: int) -> StoredItem:
    try:
        return StoredItem.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the line"
        message = f"{name}:{number}: {where}: {problem['msg']}: write items as docs/reports.md describes them"
        raise DataError("InvalidAnswers", message) from None
