"""``tunesmith-data prepare FILE --model …``: the prepare stage on a local computer."""

import argparse
import logging
import os
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path

from tunesmith_contract.exit_codes import ExitCode, FailureCategory, exit_code_of
from tunesmith_contract.layout import (
    DATA_REPORT_FILE,
    DATA_REPORT_FOLDER,
    DATA_REPORT_PAGE,
    DROPPED_FILE,
    FINDINGS_FILE,
    TRAIN_FILE,
    VALIDATION_FILE,
)
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.run_config import AdapterType
from tunesmith_data.failures import describe
from tunesmith_data.models.optional_libraries import describe_missing
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.report.data_report import DataReport

from .arguments import PrepareRequest, read_request
from .estimate import estimate
from .host_files import HostStorage, as_paths
from .progress_bar import ProgressBar
from .summary import summarize

PREPARED = "prepared"


def prepare_here(options: argparse.Namespace) -> ExitCode:
    """Run prepare; print a summary to standard output, or an error in one sentence to standard error."""
    try:
        request = read_request(options)
        report = _prepare(request)
    except KeyboardInterrupt:
        return ExitCode.PREEMPTED
    except Exception as error:  # the boundary of the process: people read sentences, not tracebacks
        logging.getLogger(__name__).debug("prepare failed", exc_info=True)
        failure = _explain(describe(error), options.model)
        sys.stderr.write(f"error: {as_paths(failure.message)}\n")
        if failure.category is FailureCategory.DATA_ERROR:
            _tell_findings(options.output)
        return exit_code_of(failure.category)
    sys.stdout.write(summarize(report, _places(request.folder), describe_missing()))
    if request.open_page:
        webbrowser.open((request.folder / DATA_REPORT_FOLDER / DATA_REPORT_PAGE).absolute().as_uri())
    failing = {Severity.ERROR, Severity.WARNING} if request.strict else {Severity.ERROR}
    failed = any(issue.severity in failing for issue in report.issues)
    return exit_code_of(FailureCategory.DATA_ERROR) if failed else ExitCode.SUCCEEDED


def _explain(failure: Failure, model: str) -> Failure:
    """The failure, with a short message in place of the hub library's if the model was not found."""
    if failure.reason != "ModelNotFound" or failure.message.startswith(model):
        return failure
    message = (
        f"{model} is not a local folder, and the hub has no such model: write a model's folder or org/name"
    )
    return failure.model_copy(update={"message": message})


def _prepare(request: PrepareRequest) -> DataReport:
    """Run the stage, and add the estimate for the options of the command line to its report."""
    _keep_quiet()
    # Imported late: torch takes seconds, and a mistyped file name should be reported at once.
    from tunesmith_data.prepare import prepare
    from tunesmith_data.rows.page.report_files import read_report, write_report

    storage = HostStorage()
    workspace = Workspace(storage, request.config)
    _forget_earlier(request.folder)
    progress = ProgressBar(sys.stderr)
    try:
        result = prepare(request.config, storage, workspace, progress)
    finally:
        progress.close()
    folder = workspace.folder / DATA_REPORT_FOLDER
    report = _complete(read_report(folder), result, request)
    write_report(folder, report)
    return report


def _complete(report: DataReport, result: RunReport, request: PrepareRequest) -> DataReport:
    plan = request.plan
    if report.recommendation:
        adapter = report.recommendation.adapter
        plan = replace(plan, adapter=None if adapter is None else AdapterType(adapter))
    training = (
        estimate(result.model.parameters, result.dataset, plan) if result.model and result.dataset else None
    )
    return report.model_copy(
        update={"title": request.config.owner.name, "model": request.model, "estimate": training}
    )


def _places(folder: Path) -> dict[str, Path]:
    """Paths of the results, by label."""
    named = {
        "Page": folder / DATA_REPORT_FOLDER / DATA_REPORT_PAGE,
        "Report": folder / DATA_REPORT_FOLDER / DATA_REPORT_FILE,
        "Training rows": folder / PREPARED / TRAIN_FILE,
        "Validation rows": folder / PREPARED / VALIDATION_FILE,
        "Dropped rows": folder / DATA_REPORT_FOLDER / DROPPED_FILE,
    }
    return {name: path for name, path in named.items() if path.is_file()}


def _tell_findings(folder: Path) -> None:
    """Print where page and findings are; both exist for rejected data as well."""
    named = {"The page": DATA_REPORT_PAGE, "All findings": FINDINGS_FILE}
    for name, file in named.items():
        path = folder / DATA_REPORT_FOLDER / file
        if path.is_file():
            sys.stderr.write(f"{name}: {path}\n")


def _forget_earlier(folder: Path) -> None:
    """Remove the results of an earlier call, so that they are not taken for results of this one."""
    for path in (*_places(folder).values(), folder / DATA_REPORT_FOLDER / FINDINGS_FILE):
        path.unlink(missing_ok=True)


def _keep_quiet() -> None:
    """Silence the logs of libraries; progress bars of downloads are shown only in a terminal."""
    logging.disable(logging.WARNING)
    # Transformers would say that it finds no torch, in each process.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
