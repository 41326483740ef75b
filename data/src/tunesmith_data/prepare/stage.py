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

from tunesmith_contract.layout import DATA_REPORT_PAGE, TRAIN_FILE, VALIDATION_FILE
from tunesmith_contract.methods import Method
from tunesmith_contract.progress import PreparePart
from tunesmith_contract.report import ModelReport, Outcome, RunReport
from tunesmith_contract.run_config import PersonalData as PersonalDataPolicy
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.failures import DataError
from tunesmith_data.models.optional_libraries import is_installed
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.pod.storage import Storage, write_atomically
from tunesmith_data.pod.work_mirror import PREPARED_REPORT_FILE
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.rewards.build import RewardedRows, check_rewards
from tunesmith_data.rows.clean.held_out_overlap import HeldOut
from tunesmith_data.rows.clean.personal_data import PersonalData, PersonalDataFinder
from tunesmith_data.rows.page.report_files import write_report
from tunesmith_data.rows.table.parquet import write_rows
from tunesmith_data.rows.table.record import Record, Side
from tunesmith_data.rows.table.row_store import RowStore

from .cleaning import clean
from .ingestion import Ingest, Masking
from .model_inspection import inspect_base
from .refused_rows import Refusals
from .reports import Findings, build_data_report, build_dataset_report
from .row_quality import judge
from .sources import Taken, read_held_out, take_answered, take_sources
from .stage_progress import PrepareProgress, ProgressListener, Seen
from .subprocess_isolation import Apart, call_apart, hold_apart
from .teacher_answers import as_supervised, endpoint_of

log = logging.getLogger(__name__)


def prepare(
    config: PrepareConfig, storage: Storage, workspace: Workspace, progress: ProgressListener
) -> RunReport:
    """Run the stage.

    Raises:
        StageError: the model or the data is wrong; the message says where.
    """
    check_rewards(config.method.rewards)
    folder = storage.model_folder(config.base_model, weights=False)
    model = call_apart(inspect_base, config, storage, folder)
    with tempfile.TemporaryDirectory() as scratch, RowStore(Path(scratch)) as store:
        whole = PrepareProgress(progress, asks_teacher=endpoint_of(config.method) is not None)
        stage = _Stage(config, storage, workspace, whole, store)
        with hold_apart(_build_renderer, config, folder) as renderer:
            changed = renderer.submit(_changes_template)
            read = stage.read(renderer)
            model = model.model_copy(update={"template_changed": changed.result()})
        found = stage.judge(read, model)
        # Written before anything is refused: people look there for what to mend.
        write_report(workspace.data_report, build_data_report(found, config, stage.finder))
        workspace.push(workspace.data_report)
        stage.require_good(found)
        with _timed("wrote", len(store)):
            _write_rows(found, workspace, whole.of(PreparePart.WRITING))
        dataset = build_dataset_report(found, str(workspace.data_report_uri.join(DATA_REPORT_PAGE)))
    report = RunReport(stage="prepare", outcome=Outcome.SUCCEEDED, dataset=dataset, model=model)
    write_atomically(workspace.prepared / PREPARED_REPORT_FILE, report.to_json().encode())
    workspace.commit(report)
    whole.finish()
    return report


def learns_answers_only(method: Method) -> bool:
    """Whether the assistant's tokens have to be told from the others."""
    return method.sft is None or method.sft.assistant_only_loss


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading leaves beside the rows in the store.

    Attributes:
        suites: what training is kept free of.
        truncated: rows that lose their end.
    """

    suites: Sequence[HeldOut]
    taken: Taken
    refusals: Refusals
    truncated: int


@dataclass
class _Stage:
    """One run: reads, cleans and judges rows."""

    config: PrepareConfig
    storage: Storage
    workspace: Workspace
    progress: PrepareProgress
    store: RowStore
    finder: PersonalDataFinder = field(default_factory=PersonalDataFinder)
    rewarded: RewardedRows = field(init=False)
    personal: PersonalData | None = field(init=False)

    def __post_init__(self) -> None:
        self.rewarded = RewardedRows(self.config.method.rewards)
        ignored = self.config.personal_data is PersonalDataPolicy.IGNORE
        self.personal = None if ignored else PersonalData(self.finder, masked=self._masks)

    @property
    def _masks(self) -> bool:
        return self.config.personal_data is PersonalDataPolicy.MASK

    def read(self, renderer: Apart[Renderer]) -> _Read:
        """Read all rows, and what they are kept free of."""
        suites = [HeldOut(each.name, read_held_out(each, self.storage)) for each in self.config.held_out]
        with Refusals(self.workspace.data_report) as refusals:
            ingest = self._ingest(renderer, refusals)
            return _Read(suites, self._take(ingest), refusals, ingest.truncated)

    def judge(self, read: _Read, model: ModelReport) -> Findings:
        """All that there is to know of the rows."""
        config, store = self.config, self.store
        with _timed("cleaned", len(store)):
            cleaned = clean(store, config, read.suites, self.progress.of(PreparePart.CLEANING))
        with _timed("judged", len(store)):
            seen = self.progress.of(PreparePart.JUDGING)
            judged = judge(store, cleaned, config, model, self.personal, seen)
        return Findings(read.taken, store, read.refusals, cleaned, judged, read.truncated)

    def require_good(self, found: Findings) -> None:
        """Check that there is something to train on, and that it is good enough.

        Raises:
            DataError: it is not.
        """
        found.refusals.require_few(self.config, found.counts.rows)
        self.rewarded.require_answers()
        if len(found.indexes(Side.TRAIN)) == 0:
            message = "no training rows are left after checks, deduplication and split: add rows"
            raise DataError("NoTrainingRows", message)

    def _ingest(self, renderer: Apart[Renderer], refusals: Refusals) -> Ingest:
        config = self.config
        return Ingest(
            store=self.store,
            refusals=refusals,
            renderer=renderer,
            method=as_supervised(config.method) if endpoint_of(config.method) else config.method,
            rewarded=self.rewarded,
            seen=self.progress.of(PreparePart.READING),
            masking=Masking(self.finder, self.personal) if self._masks and self.personal else None,
            group_field=config.validation.group_field,
            stratify_field=config.validation.stratify_field,
        )

    def _take(self, ingest: Ingest) -> Taken:
        started = time.monotonic()
        teacher = endpoint_of(self.config.method)
        if teacher is None:
            taken = take_sources(self.config, self.storage, self.workspace, ingest)
        else:
            told = self.progress.of(PreparePart.ASKING)
            taken = take_answered(self.config, self.storage, self.workspace, ingest, teacher, told)
        _log_time("read", len(self.store) + ingest.refusals.rows, started)
        return taken


def _build_renderer(config: PrepareConfig, folder: Path) -> Renderer:
    # Imported where it is used: transformers takes memory and time.
    from tunesmith_data.models.tokenizer import load_tokenizer

    # Without TRL a template is not refused: training may know a variant of it that tells answers apart.
    answers_only = learns_answers_only(config.method) and is_installed("trl")
    return Renderer(load_tokenizer(folder), answers_only=answers_only)


def _changes_template(renderer: Renderer) -> bool:
    from tunesmith_data.models.training_template import is_template_changed

    return is_template_changed(renderer.tokenizer)


def _write_rows(found: Findings, workspace: Workspace, seen: Seen) -> None:
    sides = {TRAIN_FILE: found.indexes(Side.TRAIN), VALIDATION_FILE: found.indexes(Side.VALIDATION)}
    done, total = 0, sum(map(len, sides.values()))
    for file, indexes in sides.items():
        batches = _telling(found.store.batches(indexes), done, total, seen)
        rows = ([record.row for record in batch] for batch in batches)
        write_rows(workspace.prepared / file, rows, found.store.schema)
        done += len(indexes)


def _telling(batches: Iterable[list[Record]], done: int, total: int, seen: Seen) -> Iterator[list[Record]]:
    """The same batches; of each it is told when the next one is asked for."""
    for batch in batches:
        yield batch
        done += len(batch)
        seen(done, total)


@contextmanager
def _timed(what: str, rows: int) -> Iterator[None]:
    started = time.monotonic()
    yield
    _log_time(what, rows, started)


def _log_time(what: str, rows: int, started: float) -> None:
    log.info("%s %d rows in %.1f s", what, rows, time.monotonic() - started)
