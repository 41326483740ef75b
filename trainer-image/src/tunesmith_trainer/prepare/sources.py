"""The files of a run, and what a teacher makes of their prompts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tunesmith_contract.base import Document
from tunesmith_contract.methods import TeacherEndpoint
from tunesmith_contract.run_config import DataFormat, PrepareConfig
from tunesmith_trainer.data.formats import EVALUATION, Purpose, purpose_of
from tunesmith_trainer.data.reading import RefusedRow, Source, SourceFile, SourceRow, read_all
from tunesmith_trainer.data.records import Record
from tunesmith_trainer.data.report import FileReport
from tunesmith_trainer.failures import DataError
from tunesmith_trainer.report import Workspace
from tunesmith_trainer.storage import Storage
from tunesmith_trainer.teacher import JOURNAL_FILE, Journal, answer_sources

from .ingest import Ingest
from .refusals import Refusals


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read: the format in which training rows are written, and the files."""

    data_format: DataFormat
    files: tuple[FileReport, ...]
