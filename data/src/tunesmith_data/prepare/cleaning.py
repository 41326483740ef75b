"""Assignment of each row: training, validation, duplicate, near duplicate or leaked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith_contract.run_config import Deduplicate, PrepareConfig
from tunesmith_data.rows.clean.held_out_overlap import HeldOutOverlap, HeldOutSet
from tunesmith_data.rows.clean.near_duplicates import NearCluster, NearDuplicates
from tunesmith_data.rows.findings import excerpt
from tunesmith_data.rows.report.data_report import MAX_CLUSTER_ROWS, MAX_CLUSTERS, MAX_LEAKS, Cluster, Leak
from tunesmith_data.rows.schema.row_texts import whole_text
from tunesmith_data.rows.table.record import Record, RowSide
from tunesmith_data.rows.table.row_store import Indexes, RowStore
from tunesmith_data.rows.table.split import SIDE_CODES, Sides, draw_validation, find_held_out, find_repeated

VALIDATION = "validation"

#: A validation set that overlaps with suites by more than this share is kept: it was meant to be the same data.
_MAX_LEAKED = 0.5
#: Leaked rows of a separate validation set that are shown.
_MAX_VALIDATION_LEAKS = MAX_LEAKS // 2
_KEPT = (SIDE_CODES[RowSide.TRAIN], SIDE_CODES[RowSide.VALIDATION])


@dataclass(frozen=True, slots=True)
class CleaningResult:
    """Result of cleaning: the side of each row, with clusters and leaks.

    Attributes:
        sides: side of each row, by ``split.SIDE_CODES``.
        clusters: clusters of equal and nearly equal rows, the largest first.
        near_rows: rows that nearly repeat another one, removed or not.
        leaks: the first rows that a held-out set holds, too.
        validation_leaks: rows of a separate validation set that suites hold.
        validation_kept: these rows are most of that set, and are kept.
    """

    sides: Sides
    clusters: tuple[Cluster, ...]
    near_rows: int
    leaks: tuple[Leak, ...]
    validation_leaks: int
    validation_kept: bool


def clean(
    store: RowStore,
    config: PrepareConfig,
    suites: Sequence[HeldOutSet],
    report_rows: Callable[[int, int], None],
) -> CleaningResult:
    """Side of each row.

    In this order: repeated rows, leaks of the evaluation's suites, leaks of a separate validation set, rows drawn for
    validation, and at last training rows that nearly repeat one of those.

    Args:
        suites: held-out rows of suites, and a separate validation set.
        report_rows: called with the number of rows compared, and the total.
    """
    sides = np.where(store.held_out, SIDE_CODES[RowSide.VALIDATION], SIDE_CODES[RowSide.TRAIN]).astype(
        np.uint8
    )
    repeated = find_repeated(store)
    if config.deduplicate is not Deduplicate.NONE:
        sides[repeated] = SIDE_CODES[RowSide.DUPLICATE]
    near = _find_near_duplicates(
        store, np.setdiff1d(np.flatnonzero(~store.held_out), repeated), config, report_rows
    )
    if config.deduplicate is Deduplicate.NEAR:
        removed = [duplicate.index for cluster in near for duplicate in cluster.removed]
        sides[removed] = SIDE_CODES[RowSide.NEAR_DUPLICATE]
    leaks = _LeakRemover(store, sides)
    leaks.remove_held_out()
    trained = np.flatnonzero(sides == SIDE_CODES[RowSide.TRAIN])
    # Both sides at once: an instruction is known by how many rows ask it.
    leaks.remove_overlap(suites, np.flatnonzero(np.isin(sides, _KEPT)), config)
    leaks.decide_validation()
    leaks.remove_overlap(_own_validation(store, sides), trained, config)
    candidates = np.flatnonzero(sides == SIDE_CODES[RowSide.TRAIN])
    sides[draw_validation(store, candidates, config.validation, config.seed)] = SIDE_CODES[RowSide.VALIDATION]
    leaks.remove_near_leaks(near)
    clusters = sorted(
        [*_exact_clusters(store), *_near_clusters(store, near)], key=lambda cluster: -cluster.size
    )
    return CleaningResult(
        sides=sides,
        clusters=tuple(clusters[:MAX_CLUSTERS]),
        near_rows=sum(len(cluster.removed) for cluster in near),
        leaks=leaks.shown,
        validation_leaks=len(leaks.of_validation),
        validation_kept=leaks.validation_kept,
    )


class _LeakRemover:
    """Removal of leaked rows from training and from a separate validation set, with examples.

    Attributes:
        of_validation: rows of a separate validation set that suites hold.
        validation_kept: these rows are kept.
    """

    def __init__(self, store: RowStore, sides: Sides) -> None:
        self._store = store
        self._sides = sides
        self._own = store.held_out
        self._trained: list[Leak] = []
        self._validated: list[Leak] = []
        self.of_validation: set[int] = set()
        self.validation_kept = False

    @property
    def shown(self) -> tuple[Leak, ...]:
        """The first leaks of both sides."""
        validated = [leak.model_copy(update={"kept": self.validation_kept}) for leak in self._validated]
        return (*validated, *self._trained)[:MAX_LEAKS]

    def remove_held_out(self) -> None:
        """Remove training rows that a separate validation set contains exactly."""
        leaked = find_held_out(self._store, self._sides)
        firsts = {
            self._store.digests[index].tobytes(): index
            for index in np.flatnonzero(self._sides == SIDE_CODES[RowSide.VALIDATION])[::-1]
        }
        self._sides[leaked] = SIDE_CODES[RowSide.LEAKED]
        for index in leaked[:MAX_LEAKS]:
            twin = firsts[self._store.digests[index].tobytes()]
            self._add_example(index, int(twin), "exact", 1.0)

    def remove_overlap(self, held_out: Sequence[HeldOutSet], rows: Indexes, config: PrepareConfig) -> None:
        """Remove training rows that overlap with a suite or a separate validation set.

        Those of validation are recorded; ``decide_validation`` removes or keeps them.
        """
        if not held_out:
            return
        overlap = HeldOutOverlap(held_out, threshold=config.near_threshold, seed=config.seed)
        for batch in self._store.batches(rows):
            overlap.update(batch)
        for leaked in overlap.leaks(self._store.take):
            if self._own[leaked.index]:
                self.of_validation.add(leaked.index)
                if len(self._validated) < _MAX_VALIDATION_LEAKS:
                    self._validated.append(leaked.leak.model_copy(update={"side": RowSide.VALIDATION}))
                continue
            self._sides[leaked.index] = SIDE_CODES[RowSide.LEAKED]
            if len(self._trained) < MAX_LEAKS:
                self._trained.append(leaked.leak)

    def decide_validation(self) -> None:
        """Remove leaked validation rows, unless they are most of the set."""
        validation = int((self._sides == SIDE_CODES[RowSide.VALIDATION]).sum())
        self.validation_kept = len(self.of_validation) > _MAX_LEAKED * validation
        if not self.validation_kept:
            self._sides[sorted(self.of_validation)] = SIDE_CODES[RowSide.LEAKED]

    def remove_near_leaks(self, clusters: Sequence[NearCluster]) -> None:
        """Remove training rows that nearly repeat a validation row."""
        for cluster in clusters:
            members = [cluster.kept, *(removed.index for removed in cluster.removed)]
            drawn = [index for index in members if self._sides[index] == SIDE_CODES[RowSide.VALIDATION]]
            if not drawn:
                continue
            similarity = {removed.index: removed.similarity for removed in cluster.removed}
            for index in members:
                if self._sides[index] == SIDE_CODES[RowSide.TRAIN]:
                    self._sides[index] = SIDE_CODES[RowSide.LEAKED]
                    self._add_example(
                        index, drawn[0], "near", similarity.get(index, similarity.get(drawn[0], 1.0))
                    )

    def _add_example(self, index: int, other: int, kind: str, similarity: float) -> None:
        if len(self._trained) == MAX_LEAKS:
            return
        train, held_out = self._store.take([index, other])
        self._trained.append(
            Leak(
                row=train.place,
                held_out=VALIDATION,
                other=held_out.place,
                kind=kind,
                similarity=similarity,
                excerpt=excerpt(whole_text(train.row)),
                other_excerpt=excerpt(whole_text(held_out.row)),
            )
        )


def _find_near_duplicates(
    store: RowStore, indexes: Indexes, config: PrepareConfig, report_rows: Callable[[int, int], None]
) -> tuple[NearCluster, ...]:
    """Clusters of near duplicates."""
    near = NearDuplicates(config.near_threshold, seed=config.seed)
    done = 0
    for batch in store.batches(indexes):
        near.update(batch)
        done += len(batch)
        report_rows(done, len(indexes))
    return near.clusters(store.take)


def _own_validation(store: RowStore, sides: Sides) -> list[HeldOutSet]:
    """Remaining rows of a separate validation set."""
    indexes = np.flatnonzero(sides == SIDE_CODES[RowSide.VALIDATION])
    records: list[Record] = [record for batch in store.batches(indexes) for record in batch]
    return [HeldOutSet(VALIDATION, records)] if records else []


def _exact_clusters(store: RowStore) -> Iterator[Cluster]:
    """The largest groups of rows of the same content."""
    digests = store.digests.view("S32")
    order = np.argsort(digests, kind="stable")
    begins = np.flatnonzero(np.concatenate([[True], digests[order][1:] != digests[order][:-1]]))
    sizes = np.diff(np.concatenate([begins, [len(order)]]))
    for place in np.argsort(-sizes, kind="stable")[:MAX_CLUSTERS]:
        if sizes[place] > 1:
            members = order[begins[place] : begins[place] + sizes[place]]
            yield _cluster(store, [int(index) for index in members], 1.0)


def _near_clusters(store: RowStore, clusters: Sequence[NearCluster]) -> Iterator[Cluster]:
    for cluster in sorted(clusters, key=lambda cluster: -len(cluster.removed))[:MAX_CLUSTERS]:
        members = [cluster.kept, *(removed.index for removed in cluster.removed)]
        yield _cluster(store, members, min(removed.similarity for removed in cluster.removed))


def _cluster(store: RowStore, members: Sequence[int], similarity: float) -> Cluster:
    records = store.take(members[:MAX_CLUSTER_ROWS])
    return Cluster(
        similarity=similarity,
        size=len(members),
        rows=tuple(record.place for record in records),
        excerpt=excerpt(whole_text(records[0].row)),
    )
