"""Decompression of data files, detected by magic numbers, with a limit on expansion.

A small file that would become a huge one is refused. Rows that repeat each other 100,000 times shrink to a 230th with
gzip; zeros to a 1,030th with gzip, and far more with others.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import IO, BinaryIO

import zstandard

from tunesmith_data.rows.data_files import DataFile, is_data_file, name_some
from tunesmith_data.rows.findings import Finding

from .read_errors import UnreadableFile, is_disk_error

#: Bytes by which the kind of a file is detected.
HEAD_BYTES = 16 * 1024
_CHUNK_BYTES = 256 * 1024
#: zstandard gives all that a piece of input holds at once: at most about 33,000 times as much, since four bytes may
#: stand for a block of 128 KiB.
_ZSTD_CHUNK_BYTES = 1024
#: Memory limit of a decompressor's window.
_WINDOW_BYTES = 256 * 2**20

#: zipfile raises the last four as well.
_DAMAGED = (
    *(EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError),
    *(zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError),
)
_ADVICE = "compress it again"


@dataclass(frozen=True, slots=True)
class ExpansionLimit:
    """Limit on decompression: a file larger than ``size_bytes`` may not have expanded by more than ``ratio``."""

    size_bytes: int = 512 * 2**20
    ratio: int = 500


@dataclass(frozen=True, slots=True)
class FileContent:
    """The bytes of a data file: a file's own, or a member's of an archive.

    Attributes:
        name: name in findings.
        compression: name of the compression; empty if there is none.
        head: its first bytes.
        chunks: all of its bytes, from the first one on.
        file: the file on disk, if the content is not compressed.
    """

    name: str
    compression: str
    head: bytes
    chunks: Iterator[bytes]
    file: DataFile | None = None


def open_contents(file: DataFile, limit: ExpansionLimit | None = None) -> Iterator[FileContent]:
    """Contents of a file: one, or one for each member of a zip archive.

    Raises:
        UnreadableFile: a damaged archive, one without data or in another one; on reading, what is damaged or too large.
    """
    limit = limit or ExpansionLimit()
    with file.path.open("rb") as raw:
        head = raw.read(HEAD_BYTES)
        raw.seek(0)
        compression = _detect_compression(head)
        if compression == "zip":
            yield from _open_archive(raw, file, limit)
        elif compression:
            chunks = _ExpansionGuard(limit, raw.tell, compression).guard(
                _as_unreadable(_DECOMPRESS[compression](raw), compression)
            )
            yield _open_decompressed(file.name, compression, chunks)
        else:
            yield FileContent(file.name, "", head, _read(raw), file)


def _open_archive(raw: BinaryIO, file: DataFile, limit: ExpansionLimit) -> Iterator[FileContent]:
    size = file.path.stat().st_size
    try:
        archive = zipfile.ZipFile(raw)
    except _DAMAGED as error:
        if is_disk_error(error):
            raise
        raise UnreadableFile(_damaged_finding("zip", error)) from error
    spent = _ExpansionGuard(limit, lambda: size, "zip")
    with archive:
        for member in _data_members(archive):
            chunks = spent.guard(_as_unreadable(_read_member(archive, member), "zip"))
            yield _open_decompressed(f"{file.name}/{member.filename}", "zip", chunks)


def _data_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Archive members that are data files, sorted by name."""
    files = [member for member in archive.infolist() if not member.is_dir()]
    data_files = [member for member in files if is_data_file(member.filename.rpartition("/")[2])]
    members = [member for member in data_files if not member.filename.startswith("__MACOSX/")]
    if not members:
        names = name_some([member.filename for member in files])
        advice = "put JSONL, JSON, CSV, Parquet or text files into it"
        raise UnreadableFile(
            Finding("empty_file", f"an archive without data files (it contains {names})", advice)
        )
    return sorted(members, key=lambda member: member.filename)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.flag_bits & 1:
        raise UnreadableFile(
            Finding("damaged_file", f"{member.filename} with a password", "store it without one")
        )
    with archive.open(member) as stream:
        yield from _read(stream)


def _open_decompressed(name: str, compression: str, chunks: Iterator[bytes]) -> FileContent:
    """Content with its first bytes decompressed."""
    head = b""
    try:
        while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
            head += chunk
    except UnreadableFile as error:
        raise UnreadableFile(error.finding, 1, name) from error
    if nested := _detect_compression(head):
        found = f"{nested} within {compression}"
        raise UnreadableFile(Finding("nested_archive", found, "compress the data once"), 1, name)
    return FileContent(name, compression, head[:HEAD_BYTES], chain([head], chunks))


class _ExpansionGuard:
    """Guard that limits the bytes decompressed from a file, all members together."""

    def __init__(self, limit: ExpansionLimit, bytes_read: Callable[[], int], compression: str) -> None:
        self._limit = limit
        self._bytes_read = bytes_read
        self._compression = compression
        self._total = 0

    def guard(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks, until they are too many."""
        for chunk in chunks:
            self._total += len(chunk)
            if self._total > self._limit.size_bytes and self._total > self._limit.ratio * self._bytes_read():
                raise UnreadableFile(self._finding())
            if chunk:
                yield chunk

    def _finding(self) -> Finding:
        found = (
            f"{self._bytes_read():,} bytes of {self._compression} that hold more than {self._total:,}, which is over "
            f"{self._limit.ratio} times as much"
        )
        return Finding("decompression_bomb", found, "remove repeated content, or store the data uncompressed")


def _as_unreadable(chunks: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """The same chunks; errors of decompressors become UnreadableFile, errors of the disk are raised as they are."""
    try:
        yield from chunks
    except _DAMAGED as error:
        if is_disk_error(error):
            raise
        raise UnreadableFile(_damaged_finding(compression, error)) from error


def _damaged_finding(compression: str, error: Exception) -> Finding:
    cut = "a cut-off" if isinstance(error, EOFError) else "a damaged"
    return Finding(
        "damaged_file", f"{cut} {compression} file ({str(error) or type(error).__name__})", _ADVICE
    )


def _read(stream: IO[bytes] | io.BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _gunzip(raw: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as stream:
        yield from _read(stream)


def _bunzip2(raw: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(raw) as stream:
        yield from _read(stream)


def _unxz(raw: BinaryIO) -> Iterator[bytes]:
    """Decompressed content of all xz streams of a file; LZMAFile has no memory limit."""
    data = raw.read(_CHUNK_BYTES)
    while data.strip(b"\0"):
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_BYTES)
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := raw.read(_CHUNK_BYTES)):
                raise EOFError("the end of the stream is missing")
            yield decoder.decompress(data, _CHUNK_BYTES)
            data = b""
        data = decoder.unused_data or raw.read(_CHUNK_BYTES)


def _unzstd(raw: BinaryIO) -> Iterator[bytes]:
    """Decompressed content of all zstd frames of a file; zstandard's own reader accepts a truncated frame."""
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    data = raw.read(_ZSTD_CHUNK_BYTES)
    while data:
        frame = reader.decompressobj()
        while not frame.eof:
            if not data and not (data := raw.read(_ZSTD_CHUNK_BYTES)):
                raise EOFError("the end of the frame is missing")
            yield frame.decompress(data)
            data = b""
        data = frame.unused_data or raw.read(_ZSTD_CHUNK_BYTES)


def _detect_compression(head: bytes) -> str:
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


_MAGIC: Mapping[bytes, str] = MappingProxyType(
    {
        b"\x1f\x8b": "gzip",
        **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
        b"\xfd7zXZ\x00": "xz",
        b"\x28\xb5\x2f\xfd": "zstd",
        b"PK\x03\x04": "zip",
        b"PK\x05\x06": "zip",
    }
)
_DECOMPRESS: Mapping[str, Callable[[BinaryIO], Iterator[bytes]]] = MappingProxyType(
    {"gzip": _gunzip, "bzip2": _bunzip2, "xz": _unxz, "zstd": _unzstd}
)
