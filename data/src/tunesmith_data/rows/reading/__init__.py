"""Bytes of files become rows in canonical form, one at a time, or findings, each with its place."""

from tunesmith_data.rows.data_files import DataFile, find_files

from .read_errors import raise_findings
from .row_source import RefusedRow, Source, SourceFile, SourceRow, read_source

__all__ = [
    "DataFile",
    "RefusedRow",
    "Source",
    "SourceFile",
    "SourceRow",
    "find_files",
    "raise_findings",
    "read_source",
]
