"""Data report files: ``report.json`` for programs, ``report.html`` for people."""

from pathlib import Path

from tunesmith_contract.layout import DATA_REPORT_FILE, DATA_REPORT_PAGE
from tunesmith_data.rows.report.data_report import DataReport
from tunesmith_storage.files import write_atomically

from .render import render_page


def write_report(folder: Path, report: DataReport) -> None:
    """Write both files atomically into the folder, which is created if missing."""
    write_atomically(folder / DATA_REPORT_FILE, report.to_json().encode())
    write_atomically(folder / DATA_REPORT_PAGE, render_page(report).encode())


def read_report(folder: Path) -> DataReport:
    """Report read from a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    return DataReport.model_validate_json((folder / DATA_REPORT_FILE).read_bytes())
