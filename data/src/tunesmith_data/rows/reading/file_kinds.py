"""File kinds, detected by content and name, and the reader of each."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from types import MappingProxyType

from tunesmith_contract.sources import DataFormat
from tunesmith_data.rows.data_files import MARKDOWN_SUFFIXES, is_text_file, unpacked_name
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.parsing.encodings import BYTE_ORDER_MARK, wide_encoding, wide_encoding_finding

from .compression import FileContent
from .csv_rows import detect_delimiter, read_table
from .json_rows import read_array, read_jsonl
from .lines import Entries
from .parquet_rows import read_parquet
from .read_errors import UnreadableFile
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
#: Beginnings of HTML pages.
_PAGES = (b"<!DOCTYPE", b"<!doctype", b"<html")
_ADVICE = "write JSONL, JSON, CSV, Parquet or text, plain or compressed by gzip, bzip2, xz, zstd or zip"


class FileKind(StrEnum):
    """Kind of a data file."""

    JSONL = "JSONL"
    ARRAY = "JSON"
    TABLE = "CSV"
    PARQUET = "Parquet"
    TEXT = "text"
    MARKDOWN = "Markdown"


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """Opened data file with its kind and rows.

    Attributes:
        name: name in findings.
        kind: kind of the file, which selects its reader.
        compression: name of the compression; empty if there is none.
        entries: its rows.
    """

    name: str
    kind: FileKind
    compression: str
    entries: Entries

    @property
    def is_text(self) -> bool:
        """True if the rows are passages of one document."""
        return self.kind in (FileKind.TEXT, FileKind.MARKDOWN)

    @property
    def no_rows_finding(self) -> Finding:
        """Finding for a file without rows."""
        if self.kind is FileKind.TABLE:
            return Finding("empty_file", "a header and no rows", "write records below the header")
        return Finding("empty_file", "no rows", "write one JSON object per line")

    @property
    def label(self) -> str:
        """Kind and compression as text."""
        return f"{self.kind}, {self.compression}" if self.compression else str(self.kind)


def open_rows(content: FileContent, data_format: DataFormat, members: tuple[str, ...]) -> OpenedFile:
    """Detect the kind of a content, and open its rows.

    Args:
        content: the bytes.
        data_format: how rows are written: text is read as such where it may be.
        members: the columns of a Parquet file that are needed.

    Raises:
        UnreadableFile: it is a file of another kind, or in UTF-16.
    """
    kind = _detect_kind(content, data_format)
    return OpenedFile(content.name, kind, content.compression, _READERS[kind](content, members))


def _detect_kind(content: FileContent, data_format: DataFormat) -> FileKind:
    head = content.head
    if head.startswith(_PARQUET_MAGIC):
        return FileKind.PARQUET
    _reject_other_files(head)
    name = unpacked_name(content.name)
    if is_text_file(name) and data_format in (DataFormat.AUTO, DataFormat.TEXT):
        return FileKind.MARKDOWN if name.endswith(MARKDOWN_SUFFIXES) else FileKind.TEXT
    if head.startswith(_PAGES):
        raise UnreadableFile(Finding("unknown_file", "an HTML page", _ADVICE), 1)
    if name.endswith((".csv", ".tsv")):
        return FileKind.TABLE
    if name.endswith(".parquet"):
        raise UnreadableFile(
            Finding("damaged_file", "not a Parquet file, despite its name", "write it again")
        )
    return FileKind.ARRAY if head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[") else FileKind.JSONL


def _reject_other_files(head: bytes) -> None:
    found = next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None)
    if head[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        found = "a tar archive"
    wide = wide_encoding(head)
    if wide and not found:
        raise UnreadableFile(wide_encoding_finding(wide), 1)
    if found or head.count(0) * 8 > len(head):
        raise UnreadableFile(Finding("unknown_file", found or "binary data", _ADVICE), 1)


def _without_byte_order_mark(content: FileContent) -> Iterator[bytes]:
    """The bytes after the mark that some editors write."""
    first = next(content.chunks, b"").removeprefix(BYTE_ORDER_MARK)
    return chain([first] if first else [], content.chunks)


def _read_jsonl(content: FileContent, members: tuple[str, ...]) -> Entries:
    return read_jsonl(_without_byte_order_mark(content), content.head.removeprefix(BYTE_ORDER_MARK))


def _read_array(content: FileContent, members: tuple[str, ...]) -> Entries:
    return read_array(_without_byte_order_mark(content))


def _read_table(content: FileContent, members: tuple[str, ...]) -> Entries:
    tabs = unpacked_name(content.name).endswith(".tsv")
    return read_table(_without_byte_order_mark(content), "\t" if tabs else detect_delimiter(content.head))


def _read_text(content: FileContent, members: tuple[str, ...]) -> Entries:
    return read_passages(_without_byte_order_mark(content))


def _read_markdown(content: FileContent, members: tuple[str, ...]) -> Entries:
    return read_passages(_without_byte_order_mark(content), markdown=True)


def _read_parquet(content: FileContent, members: tuple[str, ...]) -> Entries:
    """Rows of a Parquet file; a compressed one is first written to disk, since Parquet is read from its end."""
    if content.file:
        yield from read_parquet(content.file.path, members)
        return
    with tempfile.TemporaryFile() as file:
        for chunk in content.chunks:
            file.write(chunk)
        yield from read_parquet(file, members)


_READERS: Mapping[FileKind, Callable[[FileContent, tuple[str, ...]], Entries]] = MappingProxyType(
    {
        FileKind.JSONL: _read_jsonl,
        FileKind.ARRAY: _read_array,
        FileKind.TABLE: _read_table,
        FileKind.TEXT: _read_text,
        FileKind.MARKDOWN: _read_markdown,
        FileKind.PARQUET: _read_parquet,
    }
)
