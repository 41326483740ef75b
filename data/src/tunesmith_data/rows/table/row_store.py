"""Row store: rows on disk, a few numbers for each in memory (about 100 MB for a million rows).

A row is one line of canonical JSON in a file, and its digest is that of the line; an index has the offset of each line.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith_contract.base import canonical_json
from tunesmith_data.rows.schema.formats import Row

from .parquet import RowSchema
from .record import Record

#: Maximum rows of a batch, and their approximate bytes.
BATCH_ROWS = 1024
BATCH_BYTES = 8 * 2**20
_ROWS_FILE = "rows.jsonl"
_DIGEST_BYTES = 32

Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """Row to be stored.

    Attributes:
        file, line: place of the row.
        row: in canonical form.
        tokens: number of tokens, as rendered for the method.
        group, stratum: values of the fields that decide the split.
        held_out: the row belongs to a separate validation set.
    """

    file: str
    line: int
    row: Row
    tokens: int
    group: str = ""
    stratum: str = ""
    held_out: bool = False


class RowStore:
    """Row store with append and random access.

    Args:
        folder: an empty folder on the pod's own disk.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / _ROWS_FILE).open("w+b")
        self._offsets = array("q", [0])
        self._lines = array("q")
        self._tokens = array("l")
        self._files, self._file_numbers = _Names(), array("L")
        self._groups, self._group_numbers = _Names(), array("l")
        self._strata, self._stratum_numbers = _Names(), array("l")
        self._held_out = array("b")
        self._digests = bytearray()
        self._schema = RowSchema()

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, rows: Iterable[StoredRow]) -> None:
        """Keep more rows."""
        lines = []
        for stored in rows:
            line = canonical_json(stored.row)
            self._schema.update(stored.row)
            lines.append(line)
            self._digests += hashlib.sha256(line).digest()
            self._offsets.append(self._offsets[-1] + len(line) + 1)
            self._lines.append(stored.line)
            self._tokens.append(stored.tokens)
            self._file_numbers.append(self._files.number(stored.file))
            self._group_numbers.append(self._groups.number(stored.group))
            self._stratum_numbers.append(self._strata.number(stored.stratum))
            self._held_out.append(stored.held_out)
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(line + b"\n" for line in lines))

    @property
    def digests(self) -> npt.NDArray[np.void]:
        """The SHA-256 of each row's canonical JSON, 32 bytes each."""
        return np.frombuffer(bytes(self._digests), dtype=f"V{_DIGEST_BYTES}")

    @property
    def schema(self) -> pa.Schema:
        """Parquet schema of the rows."""
        return self._schema.build()

    @property
    def size_bytes(self) -> int:
        """The size of all rows."""
        return self._offsets[-1]

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.array(self._tokens, dtype=np.int64)

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Mask of rows from a separate validation set."""
        return np.array(self._held_out, dtype=np.bool_)

    @property
    def groups(self) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
        """Names of groups, and the index of each row's group; the empty name means no group."""
        return self._groups.names, np.array(self._group_numbers, dtype=np.int64)

    @property
    def strata(self) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
        """Names of strata, and the index of each row's stratum."""
        return self._strata.names, np.array(self._stratum_numbers, dtype=np.int64)

    def batches(self, indexes: Indexes | None = None) -> Iterator[list[Record]]:
        """Rows in the order of their indexes; all of them by default.

        Up to BATCH_ROWS come at a time, and of long ones so few that they take BATCH_BYTES, or one.
        """
        wanted = np.arange(len(self)) if indexes is None else indexes
        start = 0
        while start < len(wanted):
            batch = wanted[start : start + BATCH_ROWS]
            sizes = [self._offsets[index + 1] - self._offsets[index] for index in batch]
            fitting = int(np.searchsorted(np.cumsum(sizes), BATCH_BYTES, side="right"))
            batch = batch[: max(1, fitting)]
            yield self.take(batch)
            start += len(batch)

    def take(self, indexes: Indexes | Sequence[int]) -> list[Record]:
        """Records at these indexes."""
        numbers = [int(index) for index in indexes]
        return [self._record(index, line) for index, line in zip(numbers, self._read(numbers), strict=True)]

    def _record(self, index: int, line: bytes) -> Record:
        return Record(
            index=index,
            file=self._files.names[self._file_numbers[index]],
            line=self._lines[index],
            row=json.loads(line),
            tokens=self._tokens[index],
            group=self._groups.names[self._group_numbers[index]],
            stratum=self._strata.names[self._stratum_numbers[index]],
        )

    def _read(self, indexes: Sequence[int]) -> Iterator[bytes]:
        """Lines of some rows; consecutive ones are read together."""
        self._file.flush()
        for first, last in _runs(indexes):
            begin, end = self._offsets[first], self._offsets[last + 1]
            yield from os.pread(self._file.fileno(), end - begin, begin).splitlines()


class _Names:
    """Table of names, numbered in order of first use."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


def _runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of indexes that follow each other."""
    start = 0
    for position in range(1, len(indexes) + 1):
        if position == len(indexes) or indexes[position] != indexes[position - 1] + 1:
            yield indexes[start], indexes[position - 1]
            start = position
