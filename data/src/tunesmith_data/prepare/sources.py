"""Sources of a prepare run: training files, labels, generated rows, validation, suites."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith_contract.labels import ArgillaSource
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import TeacherEndpoint
from tunesmith_contract.run_config import HeldOut, PrepareConfig
from tunesmith_contract.sources import DataFormat
from tunesmith_data.endpoints.journal import Journal
from tunesmith_data.failures import DataError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.clean.held_out_overlap import HeldOutSet
from tunesmith_data.rows.reading import DataFile, FileRows, InvalidRow, RowSource, SourceRow, raise_findings
from tunesmith_data.rows.report.data_report import FileReport, HeldOutRows
from tunesmith_data.rows.report.label_agreement import LabelAgreement
from tunesmith_data.rows.schema.formats import EVALUATION, purpose_of
from tunesmith_data.rows.schema.row_checks import rows_digest
from tunesmith_data.rows.table.record import Record

from .annotator_agreement import read_agreement
from .ingestion import RowIngestion
from .invalid_rows import InvalidRows
from .teacher_answers import JOURNAL_FILE, answer_sources


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """Format, files and label agreement of the ingested sources."""

    data_format: DataFormat
    files: tuple[FileReport, ...]
    agreement: LabelAgreement | None = None


def ingest_sources(
    config: PrepareConfig, storage: Storage, workspace: Workspace, ingestion: RowIngestion
) -> SourceSummary:
    """Ingest training rows, generated rows and a separate validation set.

    Raises:
        DataError: a file is damaged as a whole, or of another format than the others.
        UserError: a file is missing, or the model's template can't render rows.
    """
    sources = [(source, False) for source in _training_sources(config, storage, workspace)]
    ingestion.expected_bytes = sum(source.bytes for source, _ in sources)
    for source, held_out in sources:
        ingestion.ingest(source, held_out=held_out)
    data_format = sources[0][0].data_format
    if config.validation.uri is not None:
        validation = RowSource(
            storage.dataset_files(config.validation.uri),
            data_format,
            purpose_of(config.method),
            _keep(config),
        )
        ingestion.ingest(validation, held_out=True)
        sources.append((validation, True))
    files = tuple(file for source, _ in sources for file in source.files)
    return SourceSummary(data_format, files, read_agreement(config, workspace))


def ingest_teacher_answers(
    config: PrepareConfig,
    storage: Storage,
    workspace: Workspace,
    ingestion: RowIngestion,
    teacher: TeacherEndpoint,
    progress: Callable[[int, int], None],
) -> SourceSummary:
    """Read prompts, get the teacher's answers, and ingest them. Rows fit into memory, since each is paid for.

    Raises:
        DataError, UserError: as ``ingest_sources``, or an error of the teacher.
        InfrastructureError: the teacher was busy or away for too long.
    """
    opened = _training_sources(config, storage, workspace)
    if config.validation.uri is not None:
        validation_files = storage.dataset_files(config.validation.uri)
        opened.append(RowSource(validation_files, config.format, purpose_of(config.method)))
    files = [_read_all(source) for source in opened]
    # Findings about prompts are raised before answers are paid for.
    with InvalidRows(workspace.data_report) as invalid_rows:
        for file in files:
            for row in file.invalid:
                invalid_rows.add(row)
    invalid_rows.require_within_limit(config, sum(len(file.rows) + len(file.invalid) for file in files))
    journal = Journal(workspace.prepared / JOURNAL_FILE, workspace.push)
    answered = answer_sources(files, teacher, journal, storage.secrets, progress)
    own = config.validation.uri is not None
    for number, file in enumerate(answered):
        ingestion.ingest([*file.invalid, *file.rows], held_out=own and number == len(answered) - 1)
    reports = tuple(report for source in opened for report in source.files)
    return SourceSummary(answered[0].data_format, reports, read_agreement(config, workspace))


def read_held_out(held_out: HeldOut, storage: Storage) -> list[Record]:
    """Rows of an evaluation suite.

    Raises:
        DataError: a row fails a check: the evaluation would fail on it once training is over.
    """
    files = storage.dataset_files(held_out.uri)
    source = _read_all(RowSource(files, held_out.format, EVALUATION, columns=held_out.columns))
    if source.findings:
        try:
            raise_findings(source.findings)
        except DataError as error:
            message = f"suite {held_out.name} of the evaluation has invalid rows: {error.message}"
            raise DataError("InvalidEvaluationRows", message) from None
    return [Record(number, row.file, row.line, row.row) for number, row in enumerate(source.rows)]


def describe_held_out(sources: Sequence[HeldOut], sets: Sequence[HeldOutSet]) -> tuple[HeldOutRows, ...]:
    """Held-out sets by the digest of their rows, by which an evaluation sees if they have changed since."""
    described = []
    for source, held_out in zip(sources, sets, strict=True):
        rows = [record.row for record in held_out.records]
        described.append(
            HeldOutRows(name=source.name, uri=source.uri, rows=len(rows), digest=rows_digest(rows))
        )
    return tuple(described)


def _training_sources(config: PrepareConfig, storage: Storage, workspace: Workspace) -> list[RowSource]:
    """Sources of training rows: labels, given files, generated rows."""
    purpose = purpose_of(config.method)
    sources = []
    if config.argilla is not None:
        file = _pull_labels(config.argilla, config.seed, storage, workspace)
        sources.append(RowSource([file], DataFormat.AUTO, purpose))
    if config.train:
        files = [file for uri in config.train for file in storage.dataset_files(uri)]
        sources.append(RowSource(files, config.format, purpose, _keep(config)))
    if config.generated is not None:
        sources.append(RowSource(storage.dataset_files(config.generated), DataFormat.AUTO, purpose))
    return sources


def _pull_labels(argilla: ArgillaSource, seed: int, storage: Storage, workspace: Workspace) -> DataFile:
    # Imported here: Argilla's client and the statistics of agreement take a second and a hundred megabytes.
    from tunesmith_data.labels.training_source import pull_rows

    secret = storage.secrets / SecretRole.TRAIN
    path = pull_rows(argilla, secret, workspace.prepared, workspace.data_report, seed)
    # The rows last: an attempt that finds them doesn't measure agreement again.
    workspace.push(workspace.data_report)
    workspace.push(path)
    return DataFile(path, path.name)


def _keep(config: PrepareConfig) -> Sequence[str]:
    """Fields that the split uses."""
    return [field for field in (config.validation.group_field, config.validation.stratify_field) if field]


def _read_all(source: RowSource) -> FileRows:
    """All rows of a source that fits into memory."""
    outcomes = list(source)
    rows = tuple(outcome for outcome in outcomes if isinstance(outcome, SourceRow))
    invalid = tuple(outcome for outcome in outcomes if isinstance(outcome, InvalidRow))
    return FileRows("", source.data_format, rows, invalid)
