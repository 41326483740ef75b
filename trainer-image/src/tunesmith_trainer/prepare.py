"""The prepare stage: look at the base model; read, check, deduplicate, split and digest the data.

It leaves ``train.parquet``, ``validation.parquet`` and ``report.json`` in the run's ``prepared`` folder.
Beside them lie ``findings.jsonl`` (all that was found wrong) and, where rows were dropped,
``dropped.jsonl``.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tunesmith_contract.layout import DATA_REPORT_FOLDER, SecretRole
from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, Outcome, RunReport, TokenStatistics
from tunesmith_contract.run_config import DataFormat, Deduplicate, OnInvalidRow, OutputFormat, PrepareConfig

from .data.checks import Finding
from .data.formats import Row, is_conversational, purpose_of
from .data.measuring import Measured, measure
from .data.parquet import read_rows, write_rows
from .data.reading import SourceFile, raise_findings, read_source
from .data.render import Renderer
from .data.split import Split, dataset_digest, split_rows
from .failures import DataError
from .model import describe_model, load_tokenizer, require_classifier
from .progress import Progress
from .report import PREPARED_REPORT_FILE, Workspace
from .rewards.build import check_rewards
from .storage import Storage, write_atomically
from .teacher import JOURNAL_FILE, Journal, answer_sources, as_supervised, endpoint_of
from .train.exports.gguf import require_gguf

TRAIN_FILE = "train.parquet"
VALIDATION_FILE = "validation.parquet"
FINDINGS_FILE = "findings.jsonl"
DROPPED_FILE = "dropped.jsonl"

#: Fewer training rows than this rarely teach a task.
FEW_ROWS = 50


def prepare(config: PrepareConfig, storage: Storage, workspace: Workspace, progress: Progress) -> RunReport:
    """Run the stage.

    Raises:
        StageError: the model or the data is wrong; the message says where.
    """
    folder = storage.model_folder(config.base_model, weights=False)
    model = describe_model(storage, config.base_model, folder)
    if config.method.reward:
        require_classifier(folder)
    if OutputFormat.GGUF in config.formats:
        require_gguf(folder)
    renderer = Renderer(load_tokenizer(folder), answers_only=learns_answers_only(config.method))
    sources = _read_sources(config, storage, workspace)
    _require_template(sources, renderer)
    check_rewards(config.method.rewards, [row.row for source in sources for row in source.rows])
    method = config.method
    if teacher := endpoint_of(method):
        # What is wrong with the prompts is said before answers are paid for.
        _apply_policy(config, [Measured(source, (), 0) for source in sources], workspace.prepared)
        journal = Journal(workspace.prepared / JOURNAL_FILE, workspace.push)
        sources = answer_sources(sources, teacher, journal, storage.secrets, progress.update)
        method = as_supervised(method)
    measured = [measure(source, renderer, method, progress.update) for source in sources]
    _apply_policy(config, measured, workspace.prepared)
    split = _split(config, measured)
    write_rows(workspace.prepared / TRAIN_FILE, split.train)
    write_rows(workspace.prepared / VALIDATION_FILE, split.validation)
    dataset = _describe(measured, split)
    report = RunReport(stage="prepare", outcome=Outcome.SUCCEEDED, dataset=dataset, model=model)
    write_atomically(workspace.prepared / PREPARED_REPORT_FILE, report.to_json().encode())
    workspace.commit(report)
    return report


def learns_answers_only(method: Method) -> bool:
    """Whether the assistant's tokens have to be told from the others."""
    return method.sft is None or method.sft.assistant_only_loss


def load_prepared(folder: Path, digest: str) -> Split:
    """The rows that prepare left.

    Raises:
        DataError: they are not there, or not what was prepared.
    """
    try:
        split = Split(tuple(read_rows(folder / TRAIN_FILE)), tuple(read_rows(folder / VALIDATION_FILE)), 0)
    except FileNotFoundError as error:
        message = f"{folder} holds no prepared data: make a new job"
        raise DataError("PreparedDataMissing", message) from error
    if dataset_digest(split) != digest:
        raise DataError(
            "PreparedDataChanged", f"the data in {folder} is not what was prepared: make a new job"
        )
    return split


def _read_sources(config: PrepareConfig, storage: Storage, workspace: Workspace) -> list[SourceFile]:
    """The training file and, if there is one, the validation file, in one format."""
    purpose = purpose_of(config.method)
    train = read_source(*_training_file(config, storage, workspace), purpose)
    if config.validation.uri is None:
        return [train]
    uri = config.validation.uri
    return [train, read_source(storage.dataset_file(uri), train.data_format, _name_of(uri), purpose)]


def _training_file(
    config: PrepareConfig, storage: Storage, workspace: Workspace
) -> tuple[Path, DataFormat, str]:
    """Path, format and name of the rows to train on: what people labelled, or a file."""
    if config.argilla is None:
        uri = config.train[0]
        return storage.dataset_file(uri), config.format, _name_of(uri)
    # Imported here: the rest of prepare needs no statistics of agreement.
    from .labels.source import pull_rows

    secret = storage.secrets / SecretRole.TRAIN
    reports = workspace.folder / DATA_REPORT_FOLDER
    path = pull_rows(config.argilla, secret, workspace.prepared, reports, config.seed)
    workspace.push(path)
    workspace.push(reports)
    return path, config.format, path.name


def _name_of(uri: str) -> str:
    return uri.rpartition("/")[2]


def _require_template(sources: Sequence[SourceFile], renderer: Renderer) -> None:
    """Rows of messages need a template under which the answers that are learned can be told apart."""
    rows = [source.rows[0].row for source in sources if source.rows]
    if any(is_conversational(row) for row in rows):
        renderer.require_chat(every_turn=any("messages" in row for row in rows))


def _apply_policy(config: PrepareConfig, measured: Sequence[Measured], folder: Path) -> None:
    """Fail on findings, or let them be dropped; either way they are written down."""
    findings = [finding for each in measured for finding in each.source.findings]
    if not findings:
        return
    write_atomically(folder / FINDINGS_FILE, _json_lines([asdict(finding) for finding in findings]))
    if config.on_invalid_row is OnInvalidRow.FAIL:
        raise_findings(findings)
    dropped = sum(len(each.source.refused) for each in measured)
    rows = dropped + sum(len(each.source.rows) for each in measured)
    if dropped > config.max_invalid_fraction * rows:
        _raise_too_many(findings, dropped, rows, config.max_invalid_fraction)
    write_atomically(folder / DROPPED_FILE, _json_lines(_dropped(measured)))


def _dropped(measured: Sequence[Measured]) -> list[dict[str, object]]:
    """Every dropped row with its reasons."""
    return [
        {
            "file": each.source.name,
            "line": refused.line,
            "reasons": [str(finding) for finding in refused.findings],
            "row": refused.row,
        }
        for each in measured
        for refused in sorted(each.source.refused, key=lambda row: row.line)
    ]


def _json_lines(values: Sequence[object]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _raise_too_many(findings: list[Finding], dropped: int, rows: int, allowed: float) -> None:
    try:
        raise_findings(findings)
    except DataError as error:
        share = f"{dropped:,} of {rows:,} rows are invalid, more than maxInvalidFraction {allowed:g} allows"
        raise DataError("TooManyInvalidRows", f"{share}: {error.message}") from None


def _split(config: PrepareConfig, measured: Sequence[Measured]) -> Split:
    train, *validation = [[row.row for row in each.source.rows] for each in measured]
    split = split_rows(
        train,
        validation[0] if validation else None,
        fraction=config.validation.fraction,
        seed=config.seed,
        exact_dedup=config.deduplicate is Deduplicate.EXACT,
    )
    if not split.train:
        message = "no training rows are left after checks, deduplication and split: add rows"
        raise DataError("NoTrainingRows", message)
    return split


def _describe(measured: Sequence[Measured], split: Split) -> DatasetReport:
    lengths = sorted(length for each in measured for length in each.lengths)
    dropped = sum(len(each.source.refused) for each in measured)
    return DatasetReport(
        digest=dataset_digest(split),
        format=measured[0].source.data_format,
        rows=dropped + sum(len(each.source.rows) for each in measured),
        train_rows=len(split.train),
        validation_rows=len(split.validation),
        duplicates=split.duplicates,
        dropped_rows=dropped,
        truncated_rows=sum(each.truncated for each in measured),
        tokens=TokenStatistics(
            p50=round(statistics.median(lengths)),
            p95=lengths[min(len(lengths) - 1, len(lengths) * 95 // 100)],
            max=lengths[-1],
            total=sum(lengths),
        ),
        warnings=tuple(_warnings(measured, split)),
    )


def _warnings(measured: Sequence[Measured], split: Split) -> list[str]:
    warnings = _label_warnings(split)
    if cut := sum(not row.findings for each in measured for row in each.source.refused):
        warnings.append(f"{cut:,} answers of the teacher were cut off and are left out: raise maxTokens")
    truncated = sum(each.truncated for each in measured)
    if truncated:
        warnings.append(f"{truncated:,} rows are longer than maxLength and lose their end: raise maxLength")
    if len(split.train) < FEW_ROWS:
        warnings.append(f"{len(split.train):,} training rows are few: 100 to 500 good ones suit most tasks")
    if not split.validation:
        warnings.append("no rows are held out for validation: set dataset.validation")
    return warnings


def _label_warnings(split: Split) -> list[str]:
    labels = {row["label"] for row in split.train if "label" in row}
    if len(labels) != 1:
        return []
    only, other = ("true", "false") if True in labels else ("false", "true")
    return [f"all labels are {only}: add answers labelled {other}, since both are needed to tell them apart"]


def rows_of(split: Split) -> list[Row]:
    """Held-out rows first, then the training rows."""
    return [*split.validation, *split.train]
