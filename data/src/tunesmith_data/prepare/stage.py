"""The prepare stage from its configuration to its report.

It leaves ``train.parquet``, ``validation.parquet`` and ``report.json`` in the run's ``prepared`` folder, and what
people read in ``data-report``, which stays.
"""

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import DATA_REPORT_PAGE, TRAIN_FILE, VALIDATION_FILE
from tunesmith_contract.methods import Method
from tunesmith_contract.progress import PreparePart
from tunesmith_contract.report import ModelReport, Outcome, RunReport
from tunesmith_contract.run_config import PersonalData as PersonalDataPolicy
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.failures import DataError
from tunesmith_data.models.optional_libraries import is_installed
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.pod.finished import holds_artifacts
from tunesmith_data.pod.storage import Storage, write_atomically
from tunesmith_data.pod.work_mirror import PREPARED_REPORT_FILE
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rewards.build import RewardedRows, check_rewards
from tunesmith_data.rows.clean.held_out_overlap import HeldOutSet
from tunesmith_data.rows.clean.personal_data import PersonalDataCheck, PersonalDataFinder
from tunesmith_data.rows.page.report_files import write_report
from tunesmith_data.rows.table.parquet import write_rows
from tunesmith_data.rows.table.record import Record, RowSide
from tunesmith_data.rows.table.row_store import RowStore

from .cleaning import clean
from .ingestion import Masking, RowIngestion
from .invalid_rows import InvalidRows
from .model_inspection import inspect_base_model
from .reports import PreparedData, build_data_report, build_dataset_report
from .row_quality import check_quality
from .sources import (
    SourceSummary,
    describe_held_out,
    ingest_sources,
    ingest_teacher_answers,
    read_held_out,
)
from .stage_progress import PrepareProgress, ProgressListener, ReportRows
from .subprocess_isolation import IsolatedObject, call_isolated, hold_isolated
from .teacher_answers import as_supervised, endpoint_of

log = logging.getLogger(__name__)


def prepare(
    config: PrepareConfig,
    storage: Storage,
    workspace: Workspace,
    progress: ProgressListener,
    finished: FinishedWork | None = None,
) -> RunReport:
    """Run the stage.

    Args:
        finished: an earlier training, which the report names if it was on the same rows and its artifact is stored.

    Raises:
        StageError: the model or the data is invalid; the message has the place.
        StorageError: a store does not answer.
    """
    check_rewards(config.method.rewards)
    folder = storage.model_folder(config.base_model, weights=False)
    model = call_isolated(inspect_base_model, config, storage, folder)
    with tempfile.TemporaryDirectory() as scratch, RowStore(Path(scratch)) as store:
        whole = PrepareProgress(progress, asks_teacher=endpoint_of(config.method) is not None)
        stage = _PrepareRun(config, storage, workspace, whole, store)
        with hold_isolated(_build_renderer, config, folder) as renderer:
            described = renderer.submit(_describe_template)
            read = stage.read(renderer)
            model = model.model_copy(update=described.result())
        data = stage.check_quality(read, model)
        # Written before anything is rejected: people look there for what to correct.
        write_report(workspace.data_report, build_data_report(data, config, stage.finder))
        workspace.push(workspace.data_report)
        stage.require_good(data)
        with _timed("wrote", len(store)):
            _write_rows(data, workspace, whole.for_part(PreparePart.WRITING))
        dataset = build_dataset_report(data, str(workspace.data_report_uri.join(DATA_REPORT_PAGE)))
    report = RunReport(stage="prepare", outcome=Outcome.SUCCEEDED, dataset=dataset, model=model)
    if finished is not None and _is_unchanged(finished, report, storage):
        report = report.model_copy(update={"reused": finished.uid})
    write_atomically(workspace.prepared / PREPARED_REPORT_FILE, report.to_json().encode())
    workspace.commit(report)
    whole.finish()
    return report


def _is_unchanged(finished: FinishedWork, report: RunReport, storage: Storage) -> bool:
    """True if a training on these rows and this model is finished and its artifact is stored."""
    assert report.dataset is not None
    assert report.model is not None
    prepared = report.dataset.digest, report.model.revision
    if (finished.dataset_digest, finished.base_model_revision) != prepared:
        log.info("rows or base model are not those of the finished training")
        return False
    return holds_artifacts(finished, storage)


def learns_answers_only(method: Method) -> bool:
    """True if only the assistant's tokens are learned."""
    return method.sft is None or method.sft.assistant_only_loss


@dataclass(frozen=True, slots=True)
class _ReadResult:
    """Result of reading, apart from the rows in the store.

    Attributes:
        suites: rows of evaluation suites, which must not be trained on.
        truncated: number of truncated rows.
    """

    suites: Sequence[HeldOutSet]
    sources: SourceSummary
    invalid_rows: InvalidRows
    truncated: int


@dataclass
class _PrepareRun:
    """One prepare run: reads, cleans and checks rows."""

    config: PrepareConfig
    storage: Storage
    workspace: Workspace
    progress: PrepareProgress
    store: RowStore
    finder: PersonalDataFinder = field(default_factory=PersonalDataFinder)
    rewarded: RewardedRows = field(init=False)
    personal: PersonalDataCheck | None = field(init=False)

    def __post_init__(self) -> None:
        self.rewarded = RewardedRows(self.config.method.rewards)
        ignored = self.config.personal_data is PersonalDataPolicy.IGNORE
        self.personal = None if ignored else PersonalDataCheck(self.finder, masked=self._masks)

    @property
    def _masks(self) -> bool:
        return self.config.personal_data is PersonalDataPolicy.MASK

    def read(self, renderer: IsolatedObject[Renderer]) -> _ReadResult:
        """Read all rows and held-out rows."""
        suites = [
            HeldOutSet(held_out.name, read_held_out(held_out, self.storage))
            for held_out in self.config.held_out
        ]
        with InvalidRows(self.workspace.data_report) as invalid_rows:
            ingest = self._ingest(renderer, invalid_rows)
            return _ReadResult(suites, self._ingest_all(ingest), invalid_rows, ingest.truncated)

    def check_quality(self, read: _ReadResult, model: ModelReport) -> PreparedData:
        """Clean the rows and check their quality."""
        config, store = self.config, self.store
        with _timed("cleaned", len(store)):
            cleaned = clean(store, config, read.suites, self.progress.for_part(PreparePart.CLEANING))
        with _timed("judged", len(store)):
            report_rows = self.progress.for_part(PreparePart.JUDGING)
            quality = check_quality(store, cleaned, config, model, self.personal, report_rows)
        held_out = describe_held_out(config.held_out, read.suites)
        return PreparedData(
            read.sources, store, read.invalid_rows, cleaned, quality, read.truncated, held_out
        )

    def require_good(self, data: PreparedData) -> None:
        """Check that there are training rows and not too many invalid ones.

        Raises:
            DataError: there are none, or too many are invalid.
        """
        data.invalid_rows.require_within_limit(self.config, data.counts.rows)
        self.rewarded.require_answers()
        if len(data.indexes(RowSide.TRAIN)) == 0:
            message = "no training rows are left after checks, deduplication and split: add rows"
            raise DataError("NoTrainingRows", message)

    def _ingest(self, renderer: IsolatedObject[Renderer], invalid_rows: InvalidRows) -> RowIngestion:
        config = self.config
        return RowIngestion(
            store=self.store,
            invalid_rows=invalid_rows,
            renderer=renderer,
            method=as_supervised(config.method) if endpoint_of(config.method) else config.method,
            rewarded=self.rewarded,
            report_rows=self.progress.for_part(PreparePart.READING),
            masking=Masking(self.finder, self.personal) if self._masks and self.personal else None,
            group_field=config.validation.group_field,
            stratify_field=config.validation.stratify_field,
        )

    def _ingest_all(self, ingest: RowIngestion) -> SourceSummary:
        started = time.monotonic()
        teacher = endpoint_of(self.config.method)
        if teacher is None:
            summary = ingest_sources(self.config, self.storage, self.workspace, ingest)
        else:
            report_answers = self.progress.for_part(PreparePart.ASKING)
            summary = ingest_teacher_answers(
                self.config, self.storage, self.workspace, ingest, teacher, report_answers
            )
        _log_time("read", len(self.store) + ingest.invalid_rows.rows, started)
        return summary


def _build_renderer(config: PrepareConfig, folder: Path) -> Renderer:
    # Imported where it is used: transformers takes memory and time.
    from tunesmith_data.models.tokenizer import load_tokenizer

    # Without TRL a template is not rejected: training may have a variant of it that locates answers.
    answers_only = learns_answers_only(config.method) and is_installed("trl")
    return Renderer(load_tokenizer(folder), answers_only=answers_only, arguments=config.template_arguments)


def _describe_template(renderer: Renderer) -> dict[str, Any]:
    """Members of a model's report that its chat template tells."""
    from tunesmith_data.models.chat_format import find_chat_format
    from tunesmith_data.models.training_template import is_template_changed

    form = find_chat_format(renderer.tokenizer)
    changed = is_template_changed(renderer.tokenizer)
    return {
        "template_changed": changed,
        "tools": form.tools if form else None,
        "thinking": form.thinking if form else None,
    }


def _write_rows(data: PreparedData, workspace: Workspace, report_rows: ReportRows) -> None:
    sides = {TRAIN_FILE: data.indexes(RowSide.TRAIN), VALIDATION_FILE: data.indexes(RowSide.VALIDATION)}
    done, total = 0, sum(map(len, sides.values()))
    for file, indexes in sides.items():
        batches = _count_batches(data.store.batches(indexes), done, total, report_rows)
        rows = ([record.row for record in batch] for batch in batches)
        write_rows(workspace.prepared / file, rows, data.store.schema)
        done += len(indexes)


def _count_batches(
    batches: Iterable[list[Record]], done: int, total: int, report_rows: ReportRows
) -> Iterator[list[Record]]:
    """The same batches, with progress reported after each."""
    for batch in batches:
        yield batch
        done += len(batch)
        report_rows(done, total)


@contextmanager
def _timed(activity: str, rows: int) -> Iterator[None]:
    started = time.monotonic()
    yield
    _log_time(activity, rows, started)


def _log_time(activity: str, rows: int, started: float) -> None:
    log.info("%s %d rows in %.1f s", activity, rows, time.monotonic() - started)
