"""Files of a report in a folder: one for programs, three for people and pipelines."""

from pathlib import Path

from tunesmith_data.failures import DataError
from tunesmith_storage.files import write_atomically

from .document import REPORT_FILE, EvaluationDocument
from .junit import render_junit
from .markdown import render_markdown
from .page import render_page

PAGE_FILE = "report.html"
MARKDOWN_FILE = "report.md"
JUNIT_FILE = "junit.xml"


def report_files(document: EvaluationDocument) -> dict[str, bytes]:
    """Contents of ``report.json`` and of its renderings, by name."""
    return {REPORT_FILE: document.to_json().encode()} | _renderings(document)


def write_report(folder: Path, document: EvaluationDocument) -> None:
    """Write ``report.json`` and its renderings; the folder is created if it is missing."""
    for name, content in report_files(document).items():
        write_atomically(folder / name, content)


def render_report(folder: Path, document: EvaluationDocument) -> None:
    """Write ``report.md``, ``junit.xml`` and ``report.html``."""
    for name, content in _renderings(document).items():
        write_atomically(folder / name, content)


def read_report(path: Path) -> EvaluationDocument:
    """Report from its file.

    Raises:
        FileNotFoundError: there is none.
        DataError: the file is no report, or one of a later version.
    """
    try:
        return EvaluationDocument.model_validate_json(path.read_bytes())
    except ValueError:
        message = (
            f"{path} is not a report of an evaluation that this version reads: evaluate again, or upgrade"
        )
        raise DataError("InvalidReport", message) from None


def _renderings(document: EvaluationDocument) -> dict[str, bytes]:
    return {
        MARKDOWN_FILE: render_markdown(document).encode(),
        JUNIT_FILE: render_junit(document).encode(),
        PAGE_FILE: render_page(document).encode(),
    }
