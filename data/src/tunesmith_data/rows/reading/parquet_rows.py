"""Parquet: one row after another, with the number of the row in the place of a line."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith_data.rows.findings import Problem, quote
from tunesmith_data.rows.parsing.strict_json import MAX_DEPTH

from .compression import Limit
from .csv_rows import check_names
from .lines import Entries
from .read_errors import Unreadable, is_of_disk

#: What is decoded together: so many bytes, by the mean of the file, and so many rows at most.
_BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20
_REASON_CHARACTERS = 200
#: A damaged footer may ask for any amount of memory.
_DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


class _Unfit(Exception):
    """A value that JSON has no form for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.check)
        self.problem = problem


def read_parquet(source: Path | BinaryIO, members: Sequence[str], limit: Limit | None = None) -> Entries:
    """Rows with their numbers, counted from 1; members that are null are left out.

    Args:
        source: the file.
        members: the columns that are read, where there are any of them; else all.
        limit: how much larger rows may be than the file.

    Raises:
        Unreadable: the file is damaged, or two columns have one name.
    """
    number = 0
    try:
        with pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if problem := check_names(names) if names else None:
                raise Unreadable(problem)
            chosen = [name for name in names if name in members] or names
            batches = file.iter_batches(_batch_rows(file.metadata), columns=chosen, use_threads=False)
            for batch in _bounded(batches, limit or Limit(), _size_of(source)):
                for row in _rows(batch):
                    number += 1
                    yield number, row
            rows = file.metadata.num_rows
    except _DAMAGED as error:
        if is_of_disk(error):
            raise
        raise Unreadable(_damaged(str(error) or type(error).__name__), number + 1) from error
    if number != rows:
        raise Unreadable(_damaged(f"{number:,} rows where its end speaks of {rows:,}"), number + 1)


def _batch_rows(metadata: pq.FileMetaData) -> int:
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES * rows // max(size, 1)))


def _size_of(source: Path | BinaryIO) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.seek(0, io.SEEK_END)


def _damaged(reason: str) -> Problem:
    return Problem(
        "damaged_file", f"a damaged Parquet file ({reason[:_REASON_CHARACTERS]})", "write it again"
    )


def _bounded(batches: Iterator[pa.RecordBatch], limit: Limit, size: int) -> Iterator[pa.RecordBatch]:
    """The same batches, until they are too much: a value that repeats takes no room in the file."""
    total = 0
    for batch in map(_without_dictionaries, batches):
        total += batch.nbytes
        if total > limit.size_bytes and total > limit.ratio * size:
            found = f"{size:,} bytes of Parquet that hold more than {total:,}"
            raise Unreadable(Problem("decompression_bomb", found, "take out what repeats"))
        yield batch


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _rows(batch: pa.RecordBatch) -> Iterator[Any]:
    """The rows of a batch; where a value can't be read, row by row, so that it costs one row."""
    try:
        values = batch.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError) as error:
        if batch.num_rows == 1:
            found = f"a value that can't be read ({quote(str(error))})"
            yield Problem("invalid_encoding", found, "write text as UTF-8")
        else:
            yield from (row for index in range(batch.num_rows) for row in _rows(batch.slice(index, 1)))
        return
    yield from map(_row, values)


def _row(value: Any) -> Any:
    try:
        return _plain(value, "", 0)
    except _Unfit as error:
        return error.problem


def _plain(value: Any, member: str, depth: int) -> Any:
    """A value of JSON's types; members of structs that are null are left out, as JSON leaves them out."""
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            found = f"more than {MAX_DEPTH} structs and lists in each other"
            raise _Unfit(Problem("nested_too_deeply", found, "write flatter rows", member))
        if isinstance(value, list):
            return [_plain(item, f"{member}[{index}]", depth + 1) for index, item in enumerate(value)]
        return {
            key: _plain(item, f"{member}.{key}" if member else key, depth + 1)
            for key, item in value.items()
            if item is not None
        }
    return _plain_scalar(value, member)


def _plain_scalar(value: Any, member: str) -> Any:
    """Dates and decimals as text."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        advice = "write null, or leave the member out"
        raise _Unfit(Problem("number_out_of_range", f"the number {value}", advice, member))
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        found = f"bytes {quote(value[:20].hex())} that are no text"
        raise _Unfit(Problem("invalid_encoding", found, "write text as UTF-8", member)) from error
