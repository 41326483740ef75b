"""What becomes of each row: repeated, leaked, held out or trained on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith_contract.run_config import Deduplicate, PrepareConfig
from tunesmith_data.rows.clean.held_out_overlap import HeldOut, LeakedRow, Overlap
from tunesmith_data.rows.clean.near_duplicates import NearCluster, NearDuplicates
from tunesmith_data.rows.findings import excerpt
from tunesmith_data.rows.report.data_report import MAX_CLUSTER_ROWS, MAX_CLUSTERS, MAX_LEAKS, Cluster, Leak
from tunesmith_data.rows.schema.row_texts import whole_text
from tunesmith_data.rows.table.record import Record, Side
from tunesmith_data.rows.table.row_store import Indexes, RowStore
from tunesmith_data.rows.table.split import CODES, Sides, draw_validation, find_held_out, find_repeated

VALIDATION = "validation"

#: A validation set of which suites hold a larger share than this was not leaked to: it is the suites, and is kept.
_MOST_LEAKED = 0.5
#: Leaked rows of a validation set of its own that are shown.
_MAX_VALIDATION_LEAKS = MAX_LEAKS // 2
_KEPT = (CODES[Side.TRAIN], CODES[Side.VALIDATION])


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of the rows.

    Attributes:
        sides: of each row, by ``split.CODES``.
        clusters: of rows that are the same, or nearly, the largest first.
        near_rows: rows that nearly repeat another one, removed or not.
        leaks: the first rows that a held-out set holds, too.
        validation_leaks: rows of a validation set of its own that suites hold.
        validation_kept: they are most of it, and stay.
    """

    sides: Sides
    clusters: tuple[Cluster, ...]
    near_rows: int
    leaks: tuple[Leak, ...]
    validation_leaks: int
    validation_kept: bool


def clean(
    store: RowStore, config: PrepareConfig, suites: Sequence[HeldOut], seen: Callable[[int, int], None]
) -> Cleaned:
    """Decide for each row.

    In this order: repeated rows, leaks of the evaluation's suites, leaks of a validation set of its own, rows drawn for
    validation, and at last training rows that nearly repeat one of those.

    Args:
        suites: what training is kept free of, and a validation set of its own.
        seen: told the number of rows compared with each other, which takes the most time, and of all.
    """
    sides = np.where(store.held_out, CODES[Side.VALIDATION], CODES[Side.TRAIN]).astype(np.uint8)
    repeated = find_repeated(store)
    if config.deduplicate is not Deduplicate.NONE:
        sides[repeated] = CODES[Side.DUPLICATE]
    near = _find_near(store, np.setdiff1d(np.flatnonzero(~store.held_out), repeated), config, seen)
    if config.deduplicate is Deduplicate.NEAR:
        _remove_near(near, sides)
    leaks = _Leaks(store, sides)
    leaks.remove_held_out()
    trained = np.flatnonzero(sides == CODES[Side.TRAIN])
    # Both sides at once: an instruction is known by how many rows ask it.
    leaks.remove_overlap(suites, np.flatnonzero(np.isin(sides, _KEPT)), config)
    leaks.decide_validation()
    leaks.remove_overlap(_own_validation(store, sides), trained, config)
    candidates = np.flatnonzero(sides == CODES[Side.TRAIN])
    sides[draw_validation(store, candidates, config.validation, config.seed)] = CODES[Side.VALIDATION]
    leaks.remove_twins(near)
    clusters = sorted([*_exact_clusters(store), *_near_clusters(store, near)], key=lambda each: -each.size)
    return Cleaned(
        sides=sides,
        clusters=tuple(clusters[:MAX_CLUSTERS]),
        near_rows=sum(len(cluster.removed) for cluster in near),
        leaks=leaks.shown,
        validation_leaks=len(leaks.of_validation),
        validation_kept=leaks.validation_kept,
    )


class _Leaks:
    """Takes rows out of training, and out of a validation set of their own, and says for what.

    Attributes:
        of_validation: rows of a validation set of its own that suites hold.
        validation_kept: they stay there.
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
        """Rows that a validation set of their own holds to the letter."""
        leaked = find_held_out(self._store, self._sides)
        firsts = {
            self._store.digests[index].tobytes(): index
            for index in np.flatnonzero(self._sides == CODES[Side.VALIDATION])[::-1]
        }
        self._sides[leaked] = CODES[Side.LEAKED]
        for index in leaked[:MAX_LEAKS]:
            twin = firsts[self._store.digests[index].tobytes()]
            self._show(index, int(twin), "exact", 1.0)

    def remove_overlap(self, held_out: Sequence[HeldOut], rows: Indexes, config: PrepareConfig) -> None:
        """Rows that a suite or a validation set of their own holds, whole or in part.

        Those of validation are noted: ``decide_validation`` says what becomes of them.
        """
        if not held_out:
            return
        overlap = Overlap(held_out, threshold=config.near_threshold, seed=config.seed)
        for batch in self._store.batches(rows):
            overlap.see(batch)
        for leaked in overlap.leaks(self._store.take):
            if self._own[leaked.index]:
                self._note_validation(leaked)
                continue
            self._sides[leaked.index] = CODES[Side.LEAKED]
            if len(self._trained) < MAX_LEAKS:
                self._trained.append(leaked.leak)

    def decide_validation(self) -> None:
        """Take the noted rows out of validation, unless they are most of it: nothing to measure by would be left."""
        validation = int((self._sides == CODES[Side.VALIDATION]).sum())
        self.validation_kept = len(self.of_validation) > _MOST_LEAKED * validation
        if not self.validation_kept:
            self._sides[sorted(self.of_validation)] = CODES[Side.LEAKED]

    def remove_twins(self, clusters: Sequence[NearCluster]) -> None:
        """Rows that nearly repeat one that was drawn for validation."""
        for cluster in clusters:
            members = [cluster.kept, *(removed.index for removed in cluster.removed)]
            drawn = [index for index in members if self._sides[index] == CODES[Side.VALIDATION]]
            if not drawn:
                continue
            likeness = {removed.index: removed.similarity for removed in cluster.removed}
            for index in members:
                if self._sides[index] == CODES[Side.TRAIN]:
                    self._sides[index] = CODES[Side.LEAKED]
                    self._show(index, drawn[0], "near", likeness.get(index, likeness.get(drawn[0], 1.0)))

    def _note_validation(self, leaked: LeakedRow) -> None:
        self.of_validation.add(leaked.index)
        if len(self._validated) < _MAX_VALIDATION_LEAKS:
            self._validated.append(leaked.leak.model_copy(update={"side": Side.VALIDATION}))

    def _show(self, index: int, other: int, kind: str, similarity: float) -> None:
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


def _find_near(
    store: RowStore, indexes: Indexes, config: PrepareConfig, seen: Callable[[int, int], None]
) -> tuple[NearCluster, ...]:
    """Clusters of rows that differ, but hardly."""
    near = NearDuplicates(config.near_threshold, seed=config.seed)
    done = 0
    for batch in store.batches(indexes):
        near.see(batch)
        done += len(batch)
        seen(done, len(indexes))
    return near.clusters(store.take)


def _remove_near(clusters: Sequence[NearCluster], sides: Sides) -> None:
    for cluster in clusters:
        for removed in cluster.removed:
            sides[removed.index] = CODES[Side.NEAR_DUPLICATE]


def _own_validation(store: RowStore, sides: Sides) -> list[HeldOut]:
    """The rows that are left of a validation set of their own."""
    indexes = np.flatnonzero(sides == CODES[Side.VALIDATION])
    records: list[Record] = [record for batch in store.batches(indexes) for record in batch]
    return [HeldOut(VALIDATION, records)] if records else []


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
    for cluster in sorted(clusters, key=lambda each: -len(each.removed))[:MAX_CLUSTERS]:
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
