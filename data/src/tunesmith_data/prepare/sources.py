"""The files of a run, in the order in which they are read, and what a teacher makes of their prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith_contract.labels import ArgillaSource
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import TeacherEndpoint
from tunesmith_contract.run_config import DataFormat, HeldOut, PrepareConfig
from tunesmith_data.endpoints.journal import Journal
from tunesmith_data.failures import DataError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rows.reading import DataFile, RefusedRow, Source, SourceFile, SourceRow, raise_findings
from tunesmith_data.rows.report.data_report import FileReport
from tunesmith_data.rows.report.label_agreement import Agreement
from tunesmith_data.rows.schema.formats import EVALUATION, purpose_of
from tunesmith_data.rows.table.record import Record

from .annotator_agreement import read_agreement
from .ingestion import Ingest
from .refused_rows import Refusals
from .teacher_answers import JOURNAL_FILE, answer_sources


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read: how training rows are written, the files, and how far people agree who labelled rows."""

    data_format: DataFormat
    files: tuple[FileReport, ...]
    agreement: Agreement | None = None


def take_sources(config: PrepareConfig, storage: Storage, workspace: Workspace, ingest: Ingest) -> Taken:
    """Read training rows, those that were generated, and a validation set of its own.

    Raises:
        DataError: a file is damaged as a whole, or of another format than the others.
        UserError: a file is missing, or the model's template can't render rows.
    """
    sources = [(source, False) for source in _training_sources(config, storage, workspace)]
    ingest.expected_bytes = sum(source.bytes for source, _ in sources)
    for source, held_out in sources:
        ingest.take(source, held_out=held_out)
    data_format = sources[0][0].data_format
    if config.validation.uri is not None:
        validation = Source(
            storage.dataset_files(config.validation.uri),
            data_format,
            purpose_of(config.method),
            _keep(config),
        )
        ingest.take(validation, held_out=True)
        sources.append((validation, True))
    files = tuple(file for source, _ in sources for file in source.files)
    return Taken(data_format, files, read_agreement(config, workspace))


def take_answered(
    config: PrepareConfig,
    storage: Storage,
    workspace: Workspace,
    ingest: Ingest,
    teacher: TeacherEndpoint,
    progress: Callable[[int, int], None],
) -> Taken:
    """Read prompts, let the teacher answer them, and take the answers. They are few: each is paid for.

    Raises:
        DataError, UserError: as ``take_sources``, or what the teacher says.
        InfrastructureError: the teacher was busy or away for too long.
    """
    opened = [*_training_sources(config, storage, workspace), *_validation_source(config, storage)]
    files = [_read_all(source) for source in opened]
    # What is wrong with the prompts is said before answers are paid for.
    with Refusals(workspace.data_report) as refusals:
        for file in files:
            for row in file.refused:
                refusals.add(row)
    refusals.require_few(config, sum(len(file.rows) + len(file.refused) for file in files))
    journal = Journal(workspace.prepared / JOURNAL_FILE, workspace.push)
    answered = answer_sources(files, teacher, journal, storage.secrets, progress)
    own = config.validation.uri is not None
    for number, file in enumerate(answered):
        ingest.take([*file.refused, *file.rows], held_out=own and number == len(answered) - 1)
    reports = tuple(report for source in opened for report in source.files)
    return Taken(answered[0].data_format, reports, read_agreement(config, workspace))


def read_held_out(held_out: HeldOut, storage: Storage) -> list[Record]:
    """The rows of an evaluation's suite.

    Raises:
        DataError: a row fails a check: the evaluation would fail on it once training is over.
    """
    source = _read_all(Source(storage.dataset_files(held_out.uri), DataFormat.AUTO, EVALUATION))
    if source.findings:
        try:
            raise_findings(source.findings)
        except DataError as error:
            message = f"the evaluation's suite {held_out.name} can't be asked: {error.message}"
            raise DataError("InvalidEvaluationRows", message) from None
    return [Record(number, row.file, row.line, row.row) for number, row in enumerate(source.rows)]


def _training_sources(config: PrepareConfig, storage: Storage, workspace: Workspace) -> list[Source]:
    """What people labelled, the rows that were given, and those that a teacher made, in a form of Tunesmith's own."""
    purpose = purpose_of(config.method)
    sources = []
    if config.argilla is not None:
        file = _pull_labels(config.argilla, config.seed, storage, workspace)
        sources.append(Source([file], DataFormat.AUTO, purpose))
    if config.train:
        files = [file for uri in config.train for file in storage.dataset_files(uri)]
        sources.append(Source(files, config.format, purpose, _keep(config)))
    if config.generated is not None:
        sources.append(Source(storage.dataset_files(config.generated), DataFormat.AUTO, purpose))
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


def _validation_source(config: PrepareConfig, storage: Storage) -> list[Source]:
    uri = config.validation.uri
    if uri is None:
        return []
    return [Source(storage.dataset_files(uri), config.format, purpose_of(config.method))]


def _keep(config: PrepareConfig) -> Sequence[str]:
    """The members that the split goes by."""
    return [field for field in (config.validation.group_field, config.validation.stratify_field) if field]


def _read_all(source: Source) -> SourceFile:
    """All rows of files that fit into memory."""
    outcomes = list(source)
    rows = tuple(each for each in outcomes if isinstance(each, SourceRow))
    refused = tuple(each for each in outcomes if isinstance(each, RefusedRow))
    return SourceFile("", source.data_format, rows, refused)
