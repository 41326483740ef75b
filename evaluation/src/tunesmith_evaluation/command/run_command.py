"""``tunesmith-eval run FILE``: the evaluate stage on a local computer."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tunesmith_contract.evaluation import Engine
from tunesmith_contract.exit_codes import ExitCode, exit_code_of
from tunesmith_contract.layout import TRAIN_FILE
from tunesmith_contract.report import Outcome, RunReport
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_contract.uris import parse_uri
from tunesmith_data.command.host_files import HostStorage, as_paths, host_uri
from tunesmith_data.command.progress_bar import ProgressBar
from tunesmith_data.endpoints.client import KEY_FILE, KEY_REFUSED
from tunesmith_data.failures import InternalError, Preempted, UserError, describe
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.secret_roles import roles_of
from tunesmith_data.pod.workspace import ANSWERS, Workspace
from tunesmith_evaluation.items.items_file import ITEMS_FILE
from tunesmith_evaluation.report.document import REPORT_FILE, EvaluationDocument
from tunesmith_evaluation.report.files import JUNIT_FILE, MARKDOWN_FILE, PAGE_FILE, read_report, write_report

from .earlier_runs import read_earlier, with_runs
from .manifest import ManifestRun, build_run, read_manifest
from .places import Places
from .summary import summarize

OUTPUT = Path("tunesmith-eval")

#: Exit codes for the verdicts; those of errors begin at 10.
VERDICT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 2}

_FILES = {
    "Page": PAGE_FILE,
    "Report": REPORT_FILE,
    "Markdown": MARKDOWN_FILE,
    "JUnit": JUNIT_FILE,
    "Items": ITEMS_FILE,
}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments and options of ``run FILE``."""
    add = parser.add_argument
    add(
        "manifest",
        type=Path,
        metavar="FILE",
        help="an EvalRun in YAML, or its spec; paths may stand for URIs",
    )
    add("--output", type=Path, default=OUTPUT, metavar="DIR", help=f"output folder (./{OUTPUT})")
    add(
        "--mount", action="append", default=[], metavar="CLAIM=DIR", help="folder that stands for pvc://CLAIM"
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder with a file per key of a Secret",
    )
    add(
        "--trained-on",
        action="append",
        default=[],
        metavar="SIDE=DIR",
        help=f"folder with the {TRAIN_FILE} that a model was trained on: items in it are left out",
    )
    add(
        "--earlier",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="folder with earlier reports: runs of the same candidate by the same policy are counted",
    )
    add("--gpus", type=int, default=0, metavar="N", help="number of GPUs (0)")
    add("--open", action="store_true", help="show the page in a browser")


def evaluate_here(options: argparse.Namespace) -> int:
    """Evaluate; print a summary to standard output, or an error in one sentence to standard error."""
    try:
        document = _evaluate(options)
    except (KeyboardInterrupt, Preempted):
        sys.stderr.write(f"interrupted: run the command again with --output {options.output} to go on\n")
        return ExitCode.PREEMPTED
    except Exception as error:  # the boundary of the process: people read sentences, not tracebacks
        logging.getLogger(__name__).debug("evaluation failed", exc_info=True)
        failure = describe(error)
        advice = _where_keys_are(options.secret) if failure.reason == KEY_REFUSED else ""
        sys.stderr.write(f"error: {as_paths(failure.message)}{advice}\n")
        return exit_code_of(failure.category)
    places = {
        name: options.output / file for name, file in _FILES.items() if (options.output / file).is_file()
    }
    sys.stdout.write(summarize(document, places))
    if options.open:
        webbrowser.open((options.output / PAGE_FILE).absolute().as_uri())
    return VERDICT_CODES[document.verdict.verdict]


def _where_keys_are(given: Sequence[str]) -> str:
    """Advice on the keys of endpoints, which lie in folders on this computer."""
    named = " ".join(f"--secret {name}={folder}" for name, folder in _folders(given, "--secret").items())
    return (
        ". On this computer a folder stands for a Secret: name it at the endpoint, such as secretRef: {name: key}, add "
        f"--secret key=FOLDER, and write the key into FOLDER/{KEY_FILE}. Given so far: {named or 'none'}"
    )


def _evaluate(options: argparse.Namespace) -> EvaluationDocument:
    if options.output.exists() and not options.output.is_dir():
        raise UserError("OutputNotAFolder", f"{options.output} is a file: write --output with a folder")
    if options.gpus < 0:
        raise UserError("InvalidOption", "--gpus can't be negative: write 0 to evaluate on CPUs")
    run = _read_run(options)
    # Read first: the output folder may be among them.
    earlier = read_earlier(options.earlier)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{options.output} can't be made ({error.strerror}): write --output with another folder"
        raise UserError("OutputNotAFolder", message) from None
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as secrets:
        _link_secrets(run.secrets, _folders(options.secret, "--secret"), Path(secrets))
        for file in _FILES.values():
            # No result of an earlier call is taken for one of this call.
            (options.output / file).unlink(missing_ok=True)
        storage = HostStorage(secrets=Path(secrets), roles=roles_of(run.config))
        document = _run_stage(run, storage)
    document = with_runs(document, earlier)
    write_report(options.output, document)
    if any(side.endpoint is not None for side in run.config.sides):
        # An address does not tell which model answers: what it serves next time has to be asked.
        shutil.rmtree(options.output / ANSWERS, ignore_errors=True)
    return document


def _read_run(options: argparse.Namespace) -> ManifestRun:
    manifest: Path = options.manifest
    places = Places(manifest.absolute().parent, _folders(options.mount, "--mount"))
    trained_on = {
        side: host_uri(_existing(folder / TRAIN_FILE, "--trained-on"))
        for side, folder in _folders(options.trained_on, "--trained-on").items()
    }
    run = build_run(
        read_manifest(manifest),
        places,
        name=manifest.stem,
        output=host_uri(options.output).rstrip("/"),
        gpus=options.gpus,
        trained_on=trained_on,
    )
    if run.config.engine is Engine.VLLM:
        message = "engine: VLLM runs beside the evaluation in a cluster: write engine: Transformers"
        raise UserError("InvalidEvalRun", message)
    return run


def _run_stage(run: ManifestRun, storage: HostStorage) -> EvaluationDocument:
    """Run the stage, and put its items into the output folder; return its report.

    Raises:
        InternalError: the stage left no report.
    """
    _keep_quiet()
    # Imported late: torch takes seconds, and a mistyped file name should be reported at once.
    from tunesmith_evaluation.stage.evaluate import evaluate

    workspace = Workspace(storage, run.config)
    bar = ProgressBar(sys.stderr)
    try:
        result = evaluate(run.config, storage, workspace, _Progress(bar.update))
    finally:
        bar.close()
    details = _details(result)
    folder = storage.path(parse_uri(details)).parent
    if not (folder / REPORT_FILE).is_file():
        raise InternalError("NoReport", f"the evaluation left no {REPORT_FILE} in {folder}")
    shutil.copyfile(folder / ITEMS_FILE, storage.path(parse_uri(run.config.output)) / ITEMS_FILE)
    document = read_report(folder / REPORT_FILE)
    # People know their files by paths, not by the URIs that stand for them.
    return EvaluationDocument.model_validate_json(as_paths(document.to_json()))


def _details(result: RunReport | None) -> str:
    """URI of the items file, beside which the report lies.

    Raises:
        StageError: the stage failed.
    """
    if result is None or result.outcome is not Outcome.SUCCEEDED or result.evaluation is None:
        message = (
            result.failure.message if result and result.failure else "the evaluation ended without a report"
        )
        raise InternalError("NoReport", message)
    return result.evaluation.details.uri


class _Progress(ProgressReporter):
    """Progress of the stage, shown instead of sent.

    Args:
        show: is called with the number of answers that are there and that of all.
    """

    def __init__(self, show: Callable[[int, int], None]) -> None:
        super().__init__({})
        self._show = show

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Show that ``done`` of ``total`` answers are there."""
        self._show(done, total)


def _link_secrets(named: Mapping[str, str], folders: Mapping[str, Path], root: Path) -> None:
    """Lay out the folders of Secrets as pods have them: one folder for each role.

    Raises:
        UserError: a Secret has no folder.
    """
    for role, name in named.items():
        if name not in folders:
            message = f"the manifest names Secret {name}: add --secret {name}=FOLDER, with a file for each of its keys"
            raise UserError("SecretNotFound", message)
        (root / role).symlink_to(folders[name].absolute(), target_is_directory=True)


def _folders(options: Sequence[str], option: str) -> dict[str, Path]:
    """Folders by name, of an option that is written as NAME=DIR.

    Raises:
        UserError: one is not written so, is no folder, or is there twice.
    """
    folders: dict[str, Path] = {}
    for written in options:
        name, separator, folder = written.partition("=")
        if not separator or not name or not folder:
            raise UserError("InvalidOption", f"{option} {written}: write {option} NAME=FOLDER")
        if name in folders:
            raise UserError("InvalidOption", f"{option} names {name} twice: write it once")
        path = Path(folder).expanduser().absolute()
        if not path.is_dir():
            raise UserError("InvalidOption", f"{option} {written}: {path} is not a folder")
        folders[name] = path
    return folders


def _existing(path: Path, option: str) -> Path:
    if not path.is_file():
        raise UserError(
            "InvalidOption", f"{option}: {path} does not exist: name the folder of a job's prepared rows"
        )
    return path


def _keep_quiet() -> None:
    """Silence the logs of libraries; progress bars are shown only in a terminal."""
    logging.disable(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not sys.stderr.isatty():
        for library in ("HUB", "DATASETS"):
            os.environ.setdefault(f"HF_{library}_DISABLE_PROGRESS_BARS", "1")
