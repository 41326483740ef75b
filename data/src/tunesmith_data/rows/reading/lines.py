"""Line reader for byte streams, with a limit on the size of a row."""

from collections.abc import Iterator
from typing import Any

from tunesmith_data.rows.findings import Finding

#: Maximum size of a row in bytes; a conversation of a million words is about 6 MiB.
MAX_ROW_BYTES = 16 * 2**20

#: Entries of a reader: the line where a row begins, counted from 1, and its value or a Finding.
Entries = Iterator[tuple[int, Any]]


def read_lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | Finding]]:
    """Lines with their numbers, without their line feeds; a finding in place of a line that is too long."""
    number, rest = 1, _LineBuffer()
    for chunk in chunks:
        first, *lines = chunk.split(b"\n")
        rest.add(first)
        for line in lines:
            yield number, rest.take()
            number += 1
            rest.add(line)
    if rest.size:
        yield number, rest.take()


def row_too_long(size: int) -> Finding:
    """Finding for a row that is too long."""
    found = f"a row of {size:,} bytes"
    return Finding("row_too_long", found, f"write rows of at most {MAX_ROW_BYTES // 2**20} MiB")


class _LineBuffer:
    """The pieces of a line that has not ended yet."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > MAX_ROW_BYTES:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def take(self) -> bytes | Finding:
        size, self.size = self.size, 0
        if size > MAX_ROW_BYTES:
            return row_too_long(size)
        line = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return line
