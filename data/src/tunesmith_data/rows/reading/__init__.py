"""Readers of data files: rows in canonical form, or findings with their place."""

from tunesmith_data.rows.data_files import DataFile, find_files

from .read_errors import raise_findings
from .row_source import FileRows, InvalidRow, RowSource, SourceRow, read_source

__all__ = [
    "DataFile",
    "FileRows",
    "InvalidRow",
    "RowSource",
    "SourceRow",
    "find_files",
    "raise_findings",
    "read_source",
]
