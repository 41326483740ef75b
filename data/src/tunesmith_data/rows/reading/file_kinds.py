"""What a file is, by its first bytes and its name, and the rows that it holds."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from types import MappingProxyType

from tunesmith_contract.run_config import DataFormat
from tunesmith_data.rows.data_files import MARKDOWN_SUFFIXES, is_text_file, unpacked_name
from tunesmith_data.rows.findings import Problem
from tunesmith_data.rows.parsing.encodings import BYTE_ORDER_MARK, wide_encoding, wide_problem

from .compression import Content
from .csv_rows import delimiter_of, read_table
from .json_array import read_array
from .jsonl import read_jsonl
from .lines import Entries
from .parquet_rows import read_parquet
from .read_errors import Unreadable
from .text_passages import read_passages

_PARQUET_MAGIC = b"PAR1"
_TAR_MAGIC, _TAR_OFFSET = b"ustar", 257
_OTHERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"%PDF-": "a PDF document",
        b"\x89PNG": "a PNG image",
        b"\xff\xd8\xff": "a JPEG image",
        b"GIF87a": "a GIF image",
        b"GIF89a": "a GIF image",
        b"ARROW1\0\0": "an Arrow file",
        b"Obj\x01": "an Avro file",
        b"SQLite format 3\0": "an SQLite database",
        b"\x89HDF": "an HDF5 file",
        b"\x93NUMPY": "a NumPy array",
        b"\x7fELF": "a program",
        b"7z\xbc\xaf": "a 7z archive",
        b"Rar!\x1a\x07": "a RAR archive",
        b"\x04\x22\x4d\x18": "an LZ4 file",
        b"\xd0\xcf\x11\xe0": "an Office document",
        b"version https://git-lfs": "a pointer of Git LFS instead of the file (git lfs pull brings it)",
    }
)
#: Text, but no rows.
_PAGES = (b"<!DOCTYPE", b"<!doctype", b"<html")
_ADVICE = "write JSONL, JSON, CSV, Parquet or text, plain or compressed by gzip, bzip2, xz, zstd or zip"


class Kind(StrEnum):
    """How a file holds rows."""

    JSONL = "JSONL"
    ARRAY = "JSON"
    TABLE = "CSV"
    PARQUET = "Parquet"
    TEXT = "text"
    MARKDOWN = "Markdown"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose kind is known.

    Attributes:
        name: what findings call it.
        kind: how it holds rows.
        compression: by what it was compressed; empty where it wasn't.
        entries: its rows.
    """

    name: str
    kind: Kind
    compression: str
    entries: Entries

    @property
    def is_text(self) -> bool:
        """Whether its rows are passages of one document."""
        return self.kind in (Kind.TEXT, Kind.MARKDOWN)

    @property
    def nothing(self) -> Problem:
        """What is wrong where there are no rows."""
        if self.kind is Kind.TABLE:
            return Problem("empty_file", "a header and no rows", "write records below the header")
        return Problem("empty_file", "no rows", "write one JSON object per line")

    @property
    def label(self) -> str:
        """Kind and compression, for people."""
        return f"{self.kind}, {self.compression}" if self.compression else str(self.kind)


def open_rows(content: Content, data_format: DataFormat, members: tuple[str, ...]) -> Opened:
    """Tell what a content is, and begin to read it.

    Args:
        content: the bytes.
        data_format: how rows are written: text is read as such where it may be.
        members: the columns of a Parquet file that are needed.

    Raises:
        Unreadable: it is a file of another kind, or in UTF-16.
    """
    kind = _kind_of(content, data_format)
    return Opened(content.name, kind, content.compression, _READERS[kind](content, members))


def _kind_of(content: Content, data_format: DataFormat) -> Kind:
    head = content.head
    if head.startswith(_PARQUET_MAGIC):
        return Kind.PARQUET
    _refuse_others(head)
    name = unpacked_name(content.name)
    if is_text_file(name) and data_format in (DataFormat.AUTO, DataFormat.TEXT):
        return Kind.MARKDOWN if name.endswith(MARKDOWN_SUFFIXES) else Kind.TEXT
    if head.startswith(_PAGES):
        raise Unreadable(Problem("unknown_file", "an HTML page", _ADVICE), 1)
    if name.endswith((".csv", ".tsv")):
        return Kind.TABLE
    if name.endswith(".parquet"):
        raise Unreadable(Problem("damaged_file", "no Parquet file, whatever its name says", "write it again"))
    return Kind.ARRAY if head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[") else Kind.JSONL


def _refuse_others(head: bytes) -> None:
    found = next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)
    if head[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        found = "a tar archive"
    wide = wide_encoding(head)
    if wide and not found:
        raise Unreadable(wide_problem(wide), 1)
    if found or head.count(0) * 8 > len(head):
        raise Unreadable(Problem("unknown_file", found or "binary data", _ADVICE), 1)


def _without_mark(content: Content) -> Iterator[bytes]:
    """The bytes after the mark that some editors write."""
    first = next(content.chunks, b"").removeprefix(BYTE_ORDER_MARK)
    return chain([first] if first else [], content.chunks)


def _read_jsonl(content: Content, members: tuple[str, ...]) -> Entries:
    return read_jsonl(_without_mark(content), content.head.removeprefix(BYTE_ORDER_MARK))


def _read_array(content: Content, members: tuple[str, ...]) -> Entries:
    return read_array(_without_mark(content))


def _read_table(content: Content, members: tuple[str, ...]) -> Entries:
    tabs = unpacked_name(content.name).endswith(".tsv")
    return read_table(_without_mark(content), "\t" if tabs else delimiter_of(content.head))


def _read_text(content: Content, members: tuple[str, ...]) -> Entries:
    return read_passages(_without_mark(content))


def _read_markdown(content: Content, members: tuple[str, ...]) -> Entries:
    return read_passages(_without_mark(content), markdown=True)


def _read_parquet(content: Content, members: tuple[str, ...]) -> Entries:
    """Parquet is read from its end, so what is compressed once more is written to the disk."""
    if content.file:
        yield from read_parquet(content.file.path, members)
        return
    with tempfile.TemporaryFile() as file:
        for chunk in content.chunks:
            file.write(chunk)
        yield from read_parquet(file, members)


_READERS: Mapping[Kind, Callable[[Content, tuple[str, ...]], Entries]] = MappingProxyType(
    {
        Kind.JSONL: _read_jsonl,
        Kind.ARRAY: _read_array,
        Kind.TABLE: _read_table,
        Kind.TEXT: _read_text,
        Kind.MARKDOWN: _read_markdown,
        Kind.PARQUET: _read_parquet,
    }
)
