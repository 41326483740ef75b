"""One JSON value a line."""

from collections.abc import Iterator

from tunesmith_data.rows.findings import Problem
from tunesmith_data.rows.parsing.encodings import Guess
from tunesmith_data.rows.parsing.strict_json import load_json

from .lines import Entries, read_lines
from .read_errors import Unreadable


def read_jsonl(chunks: Iterator[bytes], head: bytes = b"") -> Entries:
    """Rows, one a line; blank lines are no rows.

    Raises:
        Unreadable: the file begins with an object that is written over several lines.
    """
    _refuse_spread_object(head)
    guess = Guess()
    for number, line in read_lines(chunks):
        if isinstance(line, Problem):
            yield number, line
        elif line and not line.isspace():
            yield number, load_json(line, guess)


def _refuse_spread_object(head: bytes) -> None:
    lines = [line.strip() for line in head.split(b"\n", 16) if line.strip()]
    if (
        len(lines) < 2
        or not lines[0].startswith(b"{")
        or lines[0].endswith(b"}")
        or lines[1].startswith(b"{")
    ):
        return
    advice = "write one JSON object per line, or the rows as one array: [{…}, {…}]"
    raise Unreadable(Problem("invalid_json", "one object over several lines", advice, column=1), 1)
