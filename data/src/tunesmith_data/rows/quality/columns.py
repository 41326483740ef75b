"""Numbers of all rows that were seen: some 60 bytes a row, and the way back to the rows themselves."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tunesmith_data.rows.table.record import Record

from .array_types import Counts, Digests, Mask, Positions, Scores
from .class_detection import Classes, find_classes
from .class_task import ClassTask, build_task
from .digests import conflicts, mix
from .evidence import MAX_SUSPECTS, Suspects
from .row_views import Kind, RowView, view_of
from .samples import SAMPLE_ROWS, SampledRow, sampled

#: Records by their ``index``, in the order in which they are asked for.
Fetch = Callable[[Sequence[int]], Sequence[Record]]

_FETCHED_AT_ONCE = 256


@dataclass(frozen=True)
class Columns:
    """What is known of each row, by its position.

    Attributes:
        method: what the rows are for, named as in a FineTuneJob.
        kind: what the rows teach.
        index: of the record.
        digest, prompt, answer, rejected, system: of texts; 0 where there is no such text.
        label: 1 good, 0 bad, -1 not judged.
        answer_characters, rejected_characters, tokens: lengths.
    """

    method: str
    kind: Kind
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
    fetch: Fetch

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.index)

    def views(self, positions: Sequence[int] | Positions) -> Iterator[RowView]:
        """The rows at these positions, a few of them in memory at a time."""
        wanted = [int(each) for each in positions]
        for start in range(0, len(wanted), _FETCHED_AT_ONCE):
            part = wanted[start : start + _FETCHED_AT_ONCE]
            records = self.fetch([int(self.index[each]) for each in part])
            yield from (view_of(record, each) for each, record in zip(part, records, strict=True))

    def rank(self, positions: Positions, scores: Scores | None = None) -> Suspects:
        """The worst first; among equals the order is that of their digests, so not that of the files."""
        given = np.ones(len(positions)) if scores is None else scores
        order = np.lexsort((self.digest[positions], -given))[:MAX_SUSPECTS]
        return Suspects(positions[order], given[order], len(positions))

    @cached_property
    def asked(self) -> Digests:
        """What rows have in common that have to agree: prompt, prompt and answers, prompt and judged answer; or 0."""
        match self.kind:
            case Kind.PAIR:
                low, high = np.minimum(self.answer, self.rejected), np.maximum(self.answer, self.rejected)
                return mix(self.prompt, low, high)
            case Kind.JUDGED:
                return mix(self.prompt, self.answer)
        return np.where(self.answer == 0, np.uint64(0), self.prompt)

    @cached_property
    def said(self) -> Digests:
        """On what they have to agree: which answer is better, whether it is good, the answer."""
        match self.kind:
            case Kind.PAIR:
                return (self.answer < self.rejected).astype(np.uint64)
            case Kind.JUDGED:
                return self.label.astype(np.uint64)
        return self.answer

    @cached_property
    def contradicting(self) -> Mask:
        """Which rows disagree with another one."""
        return conflicts(self.asked, self.said)

    @cached_property
    def classes(self) -> Classes | None:
        """The classes that answers name, where they do."""
        answers = np.where(self.rejected == 0, self.answer, np.uint64(0))
        return find_classes(answers, self.answer_characters, self.digest)

    @cached_property
    def class_task(self) -> ClassTask | None:
        """What a small model can learn to name, where answers are classes or judged."""
        return build_task(self)

    def names(self, classes: Classes) -> list[str]:
        """The answers that classes stand for."""
        return [view.answer.strip() for view in self.views(classes.first)]

    @cached_property
    def sample(self) -> tuple[SampledRow, ...]:
        """At most SAMPLE_ROWS rows, chosen and ordered by their digests."""
        chosen = np.argsort(self.digest, kind="stable")[:SAMPLE_ROWS]
        return tuple(sampled(view) for view in self.views(chosen))


@dataclass
class ColumnWriter:
    """Columns that grow."""

    kind: Kind | None = None
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

    def close(self, method: str, fetch: Fetch) -> Columns:
        """The columns, to be read."""
        columns = {name: each for name, each in vars(self).items() if isinstance(each, array)}
        numbers: dict[str, Any] = {
            name: np.array(each, dtype=np.uint64 if each.typecode == "Q" else np.int64)
            for name, each in columns.items()
        }
        return Columns(method=method, kind=self.kind or Kind.ANSWER, fetch=fetch, **numbers)
