"""``tunesmith-eval report FOLDER …``: pages of finished evaluations."""

import argparse
import sys
import webbrowser
from pathlib import Path

from tunesmith_contract.exit_codes import ExitCode, exit_code_of
from tunesmith_data.failures import DataError, describe
from tunesmith_evaluation.report.files import read_report, render_report
from tunesmith_evaluation.report.index import INDEX_FILE, find_reports, write_index


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments and options of ``report FOLDER …``."""
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="folders that hold reports, at any depth")
    add("--index", type=Path, metavar="FILE", help=f"page that lists all reports (FOLDER/{INDEX_FILE})")
    add("--alias", metavar="NAME", help="list only reports for this alias")
    add("--open", action="store_true", help="show the list in a browser")


def report_here(options: argparse.Namespace) -> int:
    """Render all reports again, and list them; print what was written, or an error to standard error."""
    index: Path = options.index or _folder(options.folders[0]) / INDEX_FILE
    try:
        files = find_reports(options.folders)
        rendered = sum(map(_render, files))
        for problem in write_index(index, files, options.alias):
            sys.stderr.write(f"left out: {problem}\n")
    except Exception as error:  # the boundary of the process: people read sentences, not tracebacks
        failure = describe(error)
        sys.stderr.write(f"error: {failure.message}\n")
        return exit_code_of(failure.category)
    sys.stdout.write(f"{rendered} of {len(files)} reports rendered\n{index}\n")
    if options.open:
        webbrowser.open(index.absolute().as_uri())
    return ExitCode.SUCCEEDED


def _render(file: Path) -> bool:
    """Render a report beside its file; False where the file is no report, which the list names."""
    try:
        render_report(file.parent, read_report(file))
    except DataError:
        return False
    return True


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path
