"""The data report on disk: ``report.json`` for programs, ``report.html`` for people."""

from pathlib import Path

from tunesmith_contract.layout import DATA_REPORT_FILE, DATA_REPORT_PAGE
from tunesmith_data.rows.report.data_report import DataReport
from tunesmith_storage.files import write_atomically

from .render import render_page


def write_report(folder: Path, report: DataReport) -> None:
    """Write both files into the folder, each whole or not at all; the folder is made where there is none."""
    write_atomically(folder / DATA_REPORT_FILE, report.to_json().encode())
    write_atomically(folder / DATA_REPORT_PAGE, render_page(report).encode())


def read_report(folder: Path) -> DataReport:
    """The report that lies in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    return DataReport.model_validate_json((folder / DATA_REPORT_FILE).read_bytes())
