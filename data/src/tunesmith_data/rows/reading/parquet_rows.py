"""Parquet reader; findings give the number of the row as its line."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.parsing.strict_json import MAX_DEPTH

from .compression import ExpansionLimit
from .csv_rows import check_names
from .lines import Entries
from .read_errors import UnreadableFile, is_disk_error

#: Size of a batch in bytes, estimated from the file's mean, and its maximum number of rows.
_BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20
_REASON_CHARACTERS = 200
#: A damaged footer may ask for any amount of memory.
_DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


class _UnsupportedValue(Exception):
    """Value that JSON cannot represent."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.check)
        self.finding = finding


def read_parquet(
    source: Path | BinaryIO, members: Sequence[str], limit: ExpansionLimit | None = None
) -> Entries:
    """Rows with their numbers, counted from 1; members that are null are left out.

    Args:
        source: the file.
        members: the columns that are read, where there are any of them; else all.
        limit: limit on the size of all rows relative to the file.

    Raises:
        UnreadableFile: the file is damaged, or two columns have one name.
    """
    number = 0
    try:
        with pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if finding := check_names(names) if names else None:
                raise UnreadableFile(finding)
            chosen = [name for name in names if name in members] or names
            batches = file.iter_batches(_batch_rows(file.metadata), columns=chosen, use_threads=False)
            size = source.stat().st_size if isinstance(source, Path) else source.seek(0, io.SEEK_END)
            for batch in _limit_expansion(batches, limit or ExpansionLimit(), size):
                for row in _rows(batch):
                    number += 1
                    yield number, row
            rows = file.metadata.num_rows
    except _DAMAGED as error:
        if is_disk_error(error):
            raise
        raise UnreadableFile(_damaged_finding(str(error) or type(error).__name__), number + 1) from error
    if number != rows:
        raise UnreadableFile(_damaged_finding(f"{number:,} rows, but {rows:,} by its footer"), number + 1)


def _batch_rows(metadata: pq.FileMetaData) -> int:
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES * rows // max(size, 1)))


def _damaged_finding(reason: str) -> Finding:
    return Finding(
        "damaged_file", f"a damaged Parquet file ({reason[:_REASON_CHARACTERS]})", "write it again"
    )


def _limit_expansion(
    batches: Iterator[pa.RecordBatch], limit: ExpansionLimit, size: int
) -> Iterator[pa.RecordBatch]:
    """The same batches, up to the expansion limit: a repeated value takes hardly any room in the file."""
    total = 0
    for batch in map(_without_dictionaries, batches):
        total += batch.nbytes
        if total > limit.size_bytes and total > limit.ratio * size:
            found = f"{size:,} bytes of Parquet that hold more than {total:,}"
            raise UnreadableFile(Finding("decompression_bomb", found, "remove repeated values"))
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
            yield Finding("invalid_encoding", found, "write text as UTF-8")
        else:
            yield from (row for index in range(batch.num_rows) for row in _rows(batch.slice(index, 1)))
        return
    yield from map(_row, values)


def _row(value: Any) -> Any:
    try:
        return _as_json_value(value, "", 0)
    except _UnsupportedValue as error:
        return error.finding


def _as_json_value(value: Any, member: str, depth: int) -> Any:
    """A value of JSON's types; members of structs that are null are left out, as JSON leaves them out."""
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            found = f"more than {MAX_DEPTH} levels of structs and lists"
            raise _UnsupportedValue(Finding("nested_too_deeply", found, "write flatter rows", member))
        if isinstance(value, list):
            return [_as_json_value(item, f"{member}[{index}]", depth + 1) for index, item in enumerate(value)]
        return {
            key: _as_json_value(item, f"{member}.{key}" if member else key, depth + 1)
            for key, item in value.items()
            if item is not None
        }
    return _as_json_scalar(value, member)


def _as_json_scalar(value: Any, member: str) -> Any:
    """Dates and decimals as text."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        advice = "write null, or leave the member out"
        raise _UnsupportedValue(Finding("number_out_of_range", f"the number {value}", advice, member))
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        found = f"bytes {quote(value[:20].hex())} that are not text"
        raise _UnsupportedValue(Finding("invalid_encoding", found, "write text as UTF-8", member)) from error
