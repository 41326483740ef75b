"""The prepare stage: look at the base model; read, check, deduplicate, split and digest the data.

It leaves ``train.parquet``, ``validation.parquet`` and ``report.json`` in the run's ``prepared`` folder.
Beside them lie ``findings.jsonl`` (all that was found wrong) and, where rows were dropped,
``dropped.jsonl``.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, Outcome, RunReport, TokenStatistics
from tunesmith_contract.run_config import DataFormat, Deduplicate, OnInvalidRow, OutputFormat, PrepareConfig

from .data.checks import Finding, Row
from .data.parquet import read_rows, write_rows
from .data.reading import SourceFile, SourceRow, raise_findings, read_source
from .data.render import Renderer, RenderError
from .data.split import Split, dataset_digest, split_rows
from .failures import DataError
from .model import describe_model, load_tokenizer
from .progress import Progress
from .report import PREPARED_REPORT_FILE, Workspace
from .storage import Storage, write_atomically
from .train.exports.gguf import require_gguf

TRAIN_FILE = "train.parquet"
VALIDATION_FILE = "validation.parquet"
FINDINGS_FILE = "findings.jsonl"
DROPPED_FILE = "dropped.jsonl"

#: Fewer training rows than this rarely teach a task.
FEW_ROWS = 50


@dataclass(frozen=True, slots=True)
class Measured:
    """A source with the rows that the model's template takes, and how many tokens each has."""

    source: SourceFile
    lengths: dict[int, int]
    truncated: frozenset[int]


def prepare(config: PrepareConfig, storage: Storage, workspace: Workspace, progress: Progress) -> RunReport:
    """Run the stage.

    Raises:
        StageError: the model or the data is wrong; the message says where.
    """
    folder = storage.model_folder(config.base_model, weights=False)
    model = describe_model(storage, config.base_model, folder)
    if OutputFormat.GGUF in config.formats:
        require_gguf(folder)
    renderer = Renderer(load_tokenizer(folder), answers_only=learns_answers_only(config.method))
    sources = _read_sources(config, storage)
    if sources[0].data_format is DataFormat.CHAT:
        renderer.require_chat()
    measured = [_measure(source, renderer, config.method.max_length, progress) for source in sources]
    _apply_policy(config, measured, workspace.prepared)
    split = _split(config, measured)
    _write(workspace.prepared, split, sources[0].data_format)
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


def _read_sources(config: PrepareConfig, storage: Storage) -> list[SourceFile]:
    """The training file and, if there is one, the validation file, in one format."""
    train = _read(config.train, config.format, storage)
    if config.validation.uri is None:
        return [train]
    return [train, _read(config.validation.uri, train.data_format, storage)]


def _read(uri: str, data_format: DataFormat, storage: Storage) -> SourceFile:
    return read_source(storage.dataset_file(uri), data_format, name=uri.rpartition("/")[2])


def _measure(source: SourceFile, renderer: Renderer, max_length: int, progress: Progress) -> Measured:
    """Count each row's tokens; a row that the template refuses, or that loses its answer, is a finding."""
    findings: list[Finding] = []
    lengths: dict[int, int] = {}
    truncated = set()
    for number, row in enumerate(source.rows, start=1):
        progress.update(number, len(source.rows))
        try:
            tokens = renderer.tokens(row.row)
        except RenderError as error:
            findings.append(
                Finding(row.file, row.line, "template_error", str(error), "follow the model's template")
            )
            continue
        lengths[row.line] = len(tokens.ids)
        if len(tokens.ids) > max_length:
            truncated.add(row.line)
        if not any(tokens.answer[:max_length]):
            findings.append(_lost_answer(row, len(tokens.ids), max_length))
    bad = {finding.line for finding in findings}
    good = tuple(row for row in source.rows if row.line not in bad)
    refused = source.refused | {row.line: row.row for row in source.rows if row.line in bad}
    return Measured(
        replace(source, rows=good, findings=(*source.findings, *findings), refused=refused),
        {line: length for line, length in lengths.items() if line not in bad},
        frozenset(truncated - bad),
    )


def _lost_answer(row: SourceRow, tokens: int, max_length: int) -> Finding:
    found = f"no answer within the first {max_length:,} of {tokens:,} tokens"
    return Finding(row.file, row.line, "answer_truncated", found, "shorten the row or raise maxLength")


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
            "line": line,
            "reasons": [str(finding) for finding in each.source.findings if finding.line == line],
            "row": row,
        }
        for each in measured
        for line, row in sorted(each.source.refused.items())
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


def _write(folder: Path, split: Split, data_format: DataFormat) -> None:
    chat = data_format is DataFormat.CHAT
    write_rows(folder / TRAIN_FILE, split.train, chat=chat)
    write_rows(folder / VALIDATION_FILE, split.validation, chat=chat)


def _describe(measured: Sequence[Measured], split: Split) -> DatasetReport:
    lengths = sorted(length for each in measured for length in each.lengths.values())
    dropped = sum(len(each.source.refused) for each in measured)
    return DatasetReport(
        digest=dataset_digest(split),
        format=measured[0].source.data_format,
        rows=dropped + sum(len(each.source.rows) for each in measured),
        train_rows=len(split.train),
        validation_rows=len(split.validation),
        duplicates=split.duplicates,
        dropped_rows=dropped,
        truncated_rows=sum(len(each.truncated) for each in measured),
        tokens=TokenStatistics(
            p50=round(statistics.median(lengths)),
            p95=lengths[min(len(lengths) - 1, len(lengths) * 95 // 100)],
            max=lengths[-1],
            total=sum(lengths),
        ),
        warnings=tuple(_warnings(measured, split)),
    )


def _warnings(measured: Sequence[Measured], split: Split) -> list[str]:
    warnings = []
    truncated = sum(len(each.truncated) for each in measured)
    if truncated:
        warnings.append(f"{truncated:,} rows are longer than maxLength and lose their end: raise maxLength")
    if len(split.train) < FEW_ROWS:
        warnings.append(f"{len(split.train):,} training rows are few: 100 to 500 good ones suit most tasks")
    if not split.validation:
        warnings.append("no rows are held out for validation: set dataset.validation")
    return warnings


def rows_of(split: Split) -> list[Row]:
    """Held-out rows first, then the training rows."""
    return [*split.validation, *split.train]
