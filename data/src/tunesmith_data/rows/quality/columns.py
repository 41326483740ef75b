"""Columns of numbers about all rows (some 60 bytes a row), and access to the rows themselves."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith_data.rows.table.record import Record

from .arrays import Counts, Digests, Mask, Positions, Scores, conflicting, mix
from .classes import Classes, ClassTask, build_task, find_classes
from .issue_draft import MAX_FLAGGED, FlaggedRows
from .row_views import SAMPLE_ROWS, RowKind, RowView, SampledRow, build_view, sample_row

#: Records by their ``index``, in the requested order.
FetchRecords = Callable[[Sequence[int]], Sequence[Record]]

_FETCH_BATCH = 256


@dataclass(frozen=True)
class Columns:
    """Numbers about each row, by its position.

    Attributes:
        method: training method, named as in a FineTuneJob.
        kind: kind of the rows.
        index: index of the record.
        digest, prompt, answer, rejected, system: digests of texts; 0 for a missing text.
        label: 1 good, 0 bad, -1 not judged.
        answer_characters, rejected_characters, tokens: lengths.
    """

    method: str
    kind: RowKind
    index: Counts
    digest: Digests
    prompt: Digests
    answer: Digests
    rejected: Digests
    system: Digests
    label: Counts
    answer_characters: Counts
    rejected_characters: Counts
    tokens: Counts
    fetch_records: FetchRecords

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.index)

    def views(self, positions: Sequence[int] | Positions) -> Iterator[RowView]:
        """The rows at these positions, a few of them in memory at a time."""
        wanted = [int(position) for position in positions]
        for start in range(0, len(wanted), _FETCH_BATCH):
            part = wanted[start : start + _FETCH_BATCH]
            records = self.fetch_records([int(self.index[position]) for position in part])
            yield from (build_view(record, position) for position, record in zip(part, records, strict=True))

    def rank(self, positions: Positions, scores: Scores | None = None) -> FlaggedRows:
        """The worst first; among equals the order is that of their digests, so not that of the files."""
        given = np.ones(len(positions)) if scores is None else scores
        order = np.lexsort((self.digest[positions], -given))[:MAX_FLAGGED]
        return FlaggedRows(positions[order], given[order], len(positions))

    @cached_property
    def group_key(self) -> Digests:
        """Digest that groups rows which must agree: prompt, with both answers or the judged one; 0 for none."""
        match self.kind:
            case RowKind.PAIR:
                low, high = np.minimum(self.answer, self.rejected), np.maximum(self.answer, self.rejected)
                return mix(self.prompt, low, high)
            case RowKind.JUDGED:
                return mix(self.prompt, self.answer)
        return np.where(self.answer == 0, np.uint64(0), self.prompt)

    @cached_property
    def label_key(self) -> Digests:
        """Digest of what a group must agree on: the better answer, the judgment, or the answer."""
        match self.kind:
            case RowKind.PAIR:
                return (self.answer < self.rejected).astype(np.uint64)
            case RowKind.JUDGED:
                return self.label.astype(np.uint64)
        return self.answer

    @cached_property
    def contradicting(self) -> Mask:
        """Mask of rows that contradict another row."""
        return conflicting(self.group_key, self.label_key)

    @cached_property
    def classes(self) -> Classes | None:
        """The classes that answers name, where they do."""
        answers = np.where(self.rejected == 0, self.answer, np.uint64(0))
        return find_classes(answers, self.answer_characters, self.digest)

    @cached_property
    def class_task(self) -> ClassTask | None:
        """Classification task, if answers are classes or judged."""
        if self.kind is RowKind.JUDGED:
            return build_task(self.sample, self.label, ["bad", "good"])
        if self.classes:
            return build_task(self.sample, self.classes.codes, self.class_names(self.classes))
        return None

    def class_names(self, classes: Classes) -> list[str]:
        """Answers that name the classes."""
        return [view.answer.strip() for view in self.views(classes.first)]

    @cached_property
    def sample(self) -> tuple[SampledRow, ...]:
        """At most SAMPLE_ROWS rows, chosen and ordered by their digests."""
        chosen = np.argsort(self.digest, kind="stable")[:SAMPLE_ROWS]
        return tuple(sample_row(view) for view in self.views(chosen))


@dataclass
class ColumnWriter:
    """Writer of columns."""

    kind: RowKind | None = None
    index: "array[int]" = field(default_factory=lambda: array("q"))
    digest: "array[int]" = field(default_factory=lambda: array("Q"))
    prompt: "array[int]" = field(default_factory=lambda: array("Q"))
    answer: "array[int]" = field(default_factory=lambda: array("Q"))
    rejected: "array[int]" = field(default_factory=lambda: array("Q"))
    system: "array[int]" = field(default_factory=lambda: array("Q"))
    label: "array[int]" = field(default_factory=lambda: array("b"))
    answer_characters: "array[int]" = field(default_factory=lambda: array("I"))
    rejected_characters: "array[int]" = field(default_factory=lambda: array("I"))
    tokens: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, rows: Sequence[RowView]) -> None:
        """Append the numbers of the next rows."""
        if rows and self.kind is None:
            self.kind = rows[0].kind
        self.index.extend([row.record.index for row in rows])
        self.digest.extend([row.digest for row in rows])
        self.prompt.extend([row.prompt_key for row in rows])
        self.answer.extend([row.answer_key for row in rows])
        self.rejected.extend([row.rejected_key for row in rows])
        self.system.extend([row.system_key for row in rows])
        self.label.extend([-1 if row.label is None else int(row.label) for row in rows])
        self.answer_characters.extend([len(row.answer) for row in rows])
        self.rejected_characters.extend([len(row.rejected) for row in rows])
        self.tokens.extend([row.record.tokens for row in rows])

    def close(self, method: str, fetch_records: FetchRecords) -> Columns:
        """The columns, to be read."""
        columns = {name: column for name, column in vars(self).items() if isinstance(column, array)}
        numbers: dict[str, Any] = {
            name: np.array(column, dtype=np.uint64 if column.typecode == "Q" else np.int64)
            for name, column in columns.items()
        }
        return Columns(
            method=method, kind=self.kind or RowKind.ANSWER, fetch_records=fetch_records, **numbers
        )
