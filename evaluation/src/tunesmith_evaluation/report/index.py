"""Index page: the reports of an alias, or of a folder, over time."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tunesmith_data.failures import DataError, UserError
from tunesmith_storage.files import write_atomically

from . import sentences
from .charts import Trend, draw_trend
from .document import REPORT_FILE, EvaluationDocument, MetricReport
from .files import PAGE_FILE, read_report
from .page import LEVELS, page_templates

INDEX_FILE = "index.html"

#: Newest reports that are listed.
MAX_REPORTS = 500
MAX_TRENDS = 6
#: Reports in the chart of a trend, the newest ones.
MAX_TREND_POINTS = 60


@dataclass(frozen=True, slots=True)
class IndexedReport:
    """A report and where its page is.

    Attributes:
        link: relative URL of its page; empty if there is none.
    """

    document: EvaluationDocument
    link: str

    @property
    def headline(self) -> MetricReport | None:
        """Result whose change people read first."""
        return sentences.headline(self.document)


@dataclass(frozen=True, slots=True)
class TrendView:
    """Changes of one metric under one policy over time."""

    suite: str
    metric: str
    policy_digest: str
    reports: int
    chart: Trend


def find_reports(folders: Sequence[Path]) -> list[Path]:
    """Files of all reports in folders and below them, and files named themselves.

    Raises:
        UserError: a folder does not exist, or there is no report.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise UserError("ReportNotFound", f"{folder} does not exist: write the folder of a report")
        found.update([folder] if folder.is_file() else folder.rglob(REPORT_FILE))
    if not found:
        where = ", ".join(map(str, folders))
        raise UserError(
            "ReportNotFound", f"there is no {REPORT_FILE} in {where}: write the folder of a report"
        )
    return sorted(found)


def write_index(path: Path, files: Sequence[Path], alias: str | None = None) -> list[str]:
    """Write the page; return a sentence for each file that is no report. Of copies of one report the first is listed.

    Args:
        path: the page.
        files: files of reports.
        alias: only reports for this alias are listed.

    Raises:
        UserError: no report is left.
    """
    problems: list[str] = []
    reports: dict[tuple[object, ...], IndexedReport] = {}
    for file in files:
        try:
            document = read_report(file)
        except DataError as error:
            problems.append(error.message)
            continue
        if alias is None or document.run.alias == alias:
            page = file.with_name(PAGE_FILE)
            link = quote(Path(os.path.relpath(page, path.parent)).as_posix()) if page.is_file() else ""
            run = document.run
            key = run.namespace, run.name, run.uid, run.started, run.ended, document.policy.digest
            reports.setdefault(key, IndexedReport(document, link))
    if not reports:
        asked = "of this version" if alias is None else f"for alias {alias}"
        raise UserError("ReportNotFound", f"there is no report {asked} among {len(files)} files")
    title = alias or path.absolute().parent.name
    write_atomically(path, render_index(title, [*reports.values()]).encode())
    return problems


def render_index(title: str, reports: Sequence[IndexedReport]) -> str:
    """The page, newest report first; at most MAX_REPORTS are listed."""
    ordered = sorted(reports, key=lambda each: each.document.run.ended, reverse=True)
    return page_templates().render(
        "index.html.jinja",
        title=title,
        reports=ordered[:MAX_REPORTS],
        total=len(reports),
        levels=LEVELS,
        trends=list(_trends(ordered)),
    )


def _trends(newest_first: Sequence[IndexedReport]) -> Iterator[TrendView]:
    """Trends of headlines that can be compared: same metric, same policy; the longest first."""
    groups: dict[tuple[str, str, str], list[tuple[IndexedReport, MetricReport]]] = {}
    for report in newest_first:
        if (result := report.headline) is not None:
            key = (result.suite, result.metric, report.document.policy.digest)
            groups.setdefault(key, []).append((report, result))
    longest = sorted(groups.items(), key=lambda group: len(group[1]), reverse=True)
    for (suite, metric, digest), members in longest[:MAX_TRENDS]:
        shown = members[:MAX_TREND_POINTS][::-1]
        changes = [
            (report.document.run.ended, result.delta, report.document.verdict.verdict)
            for report, result in shown
            if result.delta is not None
        ]
        yield TrendView(suite, metric, digest, len(members), draw_trend(changes))
