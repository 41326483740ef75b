"""Items that sides were trained on, found in the prepared rows of each side's lineage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.evaluation import Side, TrainedRows
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import TRAIN_FILE, output_of, prepared_uri, work_of_checkpoint, work_uri
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.uris import KEEPS_WORK, InvalidUri, parse_uri
from tunesmith_data.failures import StageError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.reading.read_errors import is_disk_error
from tunesmith_data.rows.report.data_report import DataReport
from tunesmith_data.rows.schema.row_checks import row_digest, rows_digest
from tunesmith_data.rows.table.parquet import iterate_rows
from tunesmith_data.rows.table.split import dataset_digest
from tunesmith_evaluation.items.overlap import ItemOverlap, Overlap
from tunesmith_storage.errors import StorageError

from .suites import LoadedSuite

#: Failures that the same rows give again. Others, such as an unreachable bucket, fail the attempt.
_LASTING = frozenset({FailureCategory.USER_ERROR, FailureCategory.DATA_ERROR})


@dataclass(frozen=True, slots=True)
class Leak:
    """Item that a side was trained on."""

    side: str
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class SideCheck:
    """Comparison of the items with the rows that one side was trained on.

    Attributes:
        side: name of the side.
        uri: URI of the rows; empty if it is not known.
        digest: digest of the data set by the artifact's lineage; empty if it is not known.
        problem: why they could not be compared; empty if they were.
    """

    side: str
    uri: str = ""
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Result of the search for leaked items.

    Attributes:
        leaks: leaked items by their digest.
        checks: one for each side that was tuned.
        changed: sentences on suites whose rows have changed since they were held out of training.
    """

    leaks: Mapping[str, Leak]
    checks: tuple[SideCheck, ...]
    changed: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on unchecked sides and changed suites, which weaken the result."""
        unchecked = tuple(
            f"leaked items of side {check.side} are not known: {check.problem}"
            for check in self.checks
            if check.problem
        )
        return (*unchecked, *self.changed)


class _RowsUnusable(Exception):
    """Rows can't be compared; the message says why."""


def find_leaks(
    config: EvaluateConfig, manifests: Mapping[str, Manifest], suites: Sequence[LoadedSuite], storage: Storage
) -> LeakReport:
    """Search the rows that sides were trained on for the items of all suites.

    Args:
        config: names of sides and rows.
        manifests: manifests of the sides' artifacts by name of the side.
        suites: suites with all their rows.
        storage: storage of the rows.

    Raises:
        StorageError: rows can't be fetched now.
    """
    leaks: dict[str, Leak] = {}
    checks: list[SideCheck] = []
    changed: list[str] = []
    for side in config.sides:
        manifest = manifests.get(side.name)
        named = [rows for rows in config.trained_rows if rows.side == side.name]
        named = named or _rows_by_place(side, manifest)
        for rows in named:
            check = SideCheck(side.name, rows.uri, _digest(rows, manifest))
            try:
                found = _compare(rows, check.digest, suites, storage)
            except _RowsUnusable as error:
                checks.append(replace(check, problem=str(error)))
                continue
            for digest, overlap in found.items():
                leaks.setdefault(digest, Leak(side.name, overlap))
            checks.append(check)
            changed += _changed_suites(rows, suites, storage)
        if problem := _unknown_rows(side, manifest, named):
            checks.append(SideCheck(side.name, digest=_digest(None, manifest), problem=problem))
    return LeakReport(leaks, tuple(checks), tuple(dict.fromkeys(changed)))


def _rows_by_place(side: Side, manifest: Manifest | None) -> list[TrainedRows]:
    """Rows among the work files of the side's job: around its checkpoint, or beside its artifact.

    A job with a workspace elsewhere left none beside its artifact.
    """
    work = None
    if side.checkpoint is not None:
        work = work_of_checkpoint(parse_uri(side.checkpoint.uri))
    elif side.adapter is not None and manifest is not None:
        output = output_of(parse_uri(side.adapter.uri))
        if output.scheme in KEEPS_WORK:
            work = work_uri(output, manifest.lineage.namespace, manifest.lineage.uid)
    return [TrainedRows(side=side.name, uri=str(prepared_uri(work).join(TRAIN_FILE)))] if work else []


def _unknown_rows(side: Side, manifest: Manifest | None, named: Sequence[TrainedRows]) -> str:
    """Reason why some rows of a tuned side are not known; empty if all are."""
    if side.adapter is None and side.checkpoint is None:
        return ""
    if not any(rows.generation == 0 for rows in named):
        return "the rows that it was trained on are not known"
    if manifest is not None and manifest.lineage.initial is not None and len(named) == 1:
        return "it was trained further from another artifact, whose rows are not known"
    return ""


def _digest(rows: TrainedRows | None, manifest: Manifest | None) -> str:
    """Digest of the data set that a side was trained on."""
    if rows is not None and (rows.digest is not None or rows.generation > 0):
        return rows.digest or ""
    return manifest.lineage.dataset_digest if manifest is not None else ""


def _compare(
    rows: TrainedRows, digest: str, suites: Sequence[LoadedSuite], storage: Storage
) -> dict[str, Overlap]:
    """Overlaps of the items with prepared training rows.

    Raises:
        _RowsUnusable: the rows can't be read, or are not those of the artifact's lineage.
    """
    overlap = ItemOverlap(item for suite in suites for item in suite.rows)
    try:
        actual = dataset_digest(
            _train_digests(rows.uri, overlap, storage), _validation_digests(rows.validation_uri, storage)
        )
    except (StageError, StorageError) as error:
        if error.category not in _LASTING:
            raise
        raise _RowsUnusable(error.message) from error
    except (InvalidUri, ValueError, OSError) as error:
        if is_disk_error(error):
            raise
        raise _RowsUnusable(f"{rows.uri} can't be read: {error}") from error
    if digest and actual != digest:
        raise _RowsUnusable(f"{rows.uri} holds other rows than it was trained on")
    return overlap.items()


def _train_digests(uri: str, overlap: ItemOverlap, storage: Storage) -> Iterator[bytes]:
    for batch in iterate_rows(storage.dataset_file(uri)):
        overlap.update(batch)
        yield from (_bytes(row_digest(row)) for row in batch)


def _validation_digests(uri: str, storage: Storage) -> Iterator[bytes]:
    for batch in iterate_rows(storage.dataset_file(uri)):
        yield from (_bytes(row_digest(row)) for row in batch)


def _bytes(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))


def _changed_suites(rows: TrainedRows, suites: Sequence[LoadedSuite], storage: Storage) -> list[str]:
    """Sentences on suites that prepare held out with other rows than they have now."""
    report = _read_report(rows.report_uri, storage)
    if report is None:
        return []
    current = {
        suite.suite.dataset: rows_digest(item.row for item in suite.rows)
        for suite in suites
        if suite.suite.dataset
    }
    return [
        f"the rows of suite {held.name} have changed since they were held out of the training of side {rows.side}"
        for held in report.held_out
        if current.get(held.uri, held.digest) != held.digest
    ]


def _read_report(uri: str, storage: Storage) -> DataReport | None:
    """Report of the data's preparation; None if there is none."""
    try:
        return DataReport.model_validate_json(storage.dataset_file(uri).read_bytes())
    except (StageError, StorageError) as error:
        if error.category not in _LASTING:
            raise
    except ValidationError:
        pass
    return None
