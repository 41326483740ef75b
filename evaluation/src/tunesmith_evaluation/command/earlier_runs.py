"""Number of runs of a candidate by one policy, counted in folders of earlier reports.

A cluster counts EvalRuns. A computer knows only the reports that are kept: without a folder of them nothing is said.
"""

from collections.abc import Sequence
from pathlib import Path

from tunesmith_data.failures import DataError, UserError
from tunesmith_evaluation.report.document import REPORT_FILE, EvaluationDocument, SideKind
from tunesmith_evaluation.report.files import read_report


def read_earlier(folders: Sequence[Path]) -> list[EvaluationDocument] | None:
    """Reports in folders and below them; None where no folder is given. Files that are no report are passed over.

    Raises:
        UserError: a folder does not exist.
    """
    if not folders:
        return None
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                "InvalidOption", f"--earlier {folder} is not a folder: name one with earlier reports"
            )
        for file in sorted(folder.rglob(REPORT_FILE)):
            try:
                found.append(read_report(file))
            except DataError:
                continue
    return found


def with_runs(
    document: EvaluationDocument, earlier: Sequence[EvaluationDocument] | None
) -> EvaluationDocument:
    """The report with the number of runs of its candidate by its policy, this one included.

    It stays unknown without earlier reports to look at, and for a candidate that no digest names, such as an endpoint.
    The copies of one report count once: they have the same start.
    """
    candidate = _candidate(document)
    if earlier is None or not candidate:
        return document
    starts = {
        each.run.started
        for each in earlier
        if _candidate(each) == candidate and each.policy.digest == document.policy.digest
    }
    runs = len(starts - {document.run.started}) + 1
    return document.model_copy(update={"run": document.run.model_copy(update={"runs": runs})})


def _candidate(document: EvaluationDocument) -> str:
    """Digest of the artifact, or revision of the model; empty for an endpoint, which tells neither."""
    side = document.sides[0]
    return "" if side.kind is SideKind.ENDPOINT else side.digest or side.revision
