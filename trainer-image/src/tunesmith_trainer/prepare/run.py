"""The prepare stage from its configuration to its report.

It leaves ``train.parquet``, ``validation.parquet`` and ``report.json`` in the run's ``prepared`` folder, and what
people read in ``data-report``, which stays.
"""

import tempfile
from functools import partial
from pathlib import Path

from tunesmith_contract.layout import DATA_REPORT_PAGE, TRAIN_FILE, VALIDATION_FILE
from tunesmith_contract.methods import Method
from tunesmith_contract.report import ModelReport, Outcome, RunReport
from tunesmith_contract.run_config import PersonalData as PersonalDataPolicy
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_trainer.apart import call_apart
from tunesmith_trainer.data.clean.overlap import HeldOut
from tunesmith_trainer.data.clean.personal_data import PersonalData, PersonalDataFinder
from tunesmith_trainer.data.page.files import write_report
from tunesmith_trainer.data.parquet import write_rows
from tunesmith_trainer.data.records import Side
from tunesmith_trainer.data.render import MarkedTemplate, Renderer
from tunesmith_trainer.data.store import RowStore
from tunesmith_trainer.failures import DataError
from tunesmith_trainer.progress import Progress
from tunesmith_trainer.report import PREPARED_REPORT_FILE, Workspace
from tunesmith_trainer.rewards.build import RewardedRows, check_rewards
from tunesmith_trainer.storage import Storage, write_atomically
from tunesmith_trainer.teacher import as_supervised, endpoint_of

from .cleaning import clean
from .describe import Findings, build_data_report, build_dataset_report
from .ingest import Ingest, Masking
from .inspecting import inspect_base
from .judging import judge
from .refusals import Refusals
from .sources import Taken, read_held_out, take_answered, take_sources


def prepare(config: PrepareConfig, storage: Storage, workspace: Workspace, progress: Progress) -> RunReport:
    """Run the stage.

    Raises:
        StageError: the model or the data is wrong; the message says where.
    """
    check_rewards(config.method.rewards)
    folder = storage.model_folder(config.base_model, weights=False)
    model, template = call_apart(inspect_base, config, storage, folder)
    renderer = _build_renderer(config, folder, template)
    with tempfile.TemporaryDirectory() as scratch, RowStore(Path(scratch)) as store:
        found = _find(config, storage, workspace, progress, model, renderer, store)
        _require_rows(found, config)
        _write_rows(found, workspace)
        report = _report(found, workspace, model)
    write_atomically(workspace.prepared / PREPARED_REPORT_FILE, report.to_json().encode())
    workspace.commit(report)
    return report


def learns_answers_only(method: Method) -> bool:
    """Whether the assistant's tokens have to be told from the others."""
    return method.sft is None or method.sft.assistant_only_loss


def _build_renderer(config: PrepareConfig, folder: Path, template: MarkedTemplate) -> Renderer:
    # Transformers loads torch, which would then be in this process before the model has been looked at apart.
    from tunesmith_trainer.tokenizer import load_tokenizer

    answers_only = learns_answers_only(config.method)
    return Renderer(load_tokenizer(folder), answers_only=answers_only, marked_template=template)


def _find(
    config: PrepareConfig,
    storage: Storage,
    workspace: Workspace,
    progress: Progress,
    model: ModelReport,
    renderer: Renderer,
    store: RowStore,
) -> Findings:
    """Read, clean and judge."""
    suites = [HeldOut(each.name, read_held_out(each, storage)) for each in config.held_out]
    rewarded = RewardedRows(config.method.rewards)
    finder = PersonalDataFinder()
    masks = config.personal_data is PersonalDataPolicy.MASK
    personal = (
        None if config.personal_data is PersonalDataPolicy.IGNORE else PersonalData(finder, masked=masks)
    )
    with Refusals(workspace.data_report) as refusals:
        ingest = Ingest(
            store=store,
            refusals=refusals,
            renderer=renderer,
            method=as_supervised(config.method) if endpoint_of(config.method) else config.method,
            rewarded=rewarded,
            seen=lambda rows: progress.update(rows, rows + 1),
            masking=Masking(finder, personal) if masks and personal else None,
            group_field=config.validation.group_field,
            stratify_field=config.validation.stratify_field,
        )
        taken = _take(config, storage, workspace, ingest, progress)
    cleaned = clean(store, config, suites)
    judged = judge(store, cleaned, config, model, personal, partial(progress.update, stage="quality"))
    found = Findings(taken, store, refusals, cleaned, judged, ingest.truncated)
    # Written before anything is refused: people look there for what to mend.
    write_report(workspace.data_report, build_data_report(found, config, finder))
    workspace.push(workspace.data_report)
    rewarded.require_answers()
    return found


def _take(
    config: PrepareConfig, storage: Storage, workspace: Workspace, ingest: Ingest, progress: Progress
) -> Taken:
    teacher = endpoint_of(config.method)
    if teacher is None:
        return take_sources(config, storage, workspace, ingest)
    return take_answered(config, storage, workspace, ingest, teacher, progress.update)


def _require_rows(found: Findings, config: PrepareConfig) -> None:
    found.refusals.require_few(config, found.counts.rows)
    if len(found.indexes(Side.TRAIN)) == 0:
        message = "no training rows are left after checks, deduplication and split: add rows"
        raise DataError("NoTrainingRows", message)


def _write_rows(found: Findings, workspace: Workspace) -> None:
    for file, side in ((TRAIN_FILE, Side.TRAIN), (VALIDATION_FILE, Side.VALIDATION)):
        batches = found.store.batches(found.indexes(side))
        rows = ([record.row for record in batch] for batch in batches)
        write_rows(workspace.prepared / file, rows, found.store.schema)


def _report(found: Findings, workspace: Workspace, model: ModelReport) -> RunReport:
    page = str(workspace.data_report_uri.join(DATA_REPORT_PAGE))
    dataset = build_dataset_report(found, page)
    return RunReport(stage="prepare", outcome=Outcome.SUCCEEDED, dataset=dataset, model=model)
