"""From files to the store: rows are checked, measured and kept; what is wrong with others is written down."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from tunesmith_contract.methods import Method
from tunesmith_trainer.data.clean.personal_data import PersonalData, PersonalDataFinder
from tunesmith_trainer.data.findings import Problem
from tunesmith_trainer.data.formats import Row, is_conversational
from tunesmith_trainer.data.measuring import is_cut, measure
from tunesmith_trainer.data.reading import RefusedRow, SourceRow
from tunesmith_trainer.data.records import Record
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.data.store import BATCH_ROWS, RowStore, Stored
from tunesmith_trainer.failures import DataError
from tunesmith_trainer.rewards.build import RewardedRows

from .refusals import Refusals

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Masking:
    """What takes personal data out of rows, and the check that is told of it."""

    finder: PersonalDataFinder
    check: PersonalData


@dataclass(slots=True)
class Ingest:
    """Takes rows in batches.

    Attributes:
        store: keeps those that can be learned from.
        refusals: is told of the others.
        renderer, method: measure a row's tokens.
        rewarded: sees what is to be rewarded.
        masking: takes personal data out of rows, where that is wanted.
        group_field, stratify_field: which values of a row the split goes by.
        seen: is told after each batch how many rows there are, and about how many there will be.
        expected_bytes: size of the files, as far as it is known.
        truncated: rows that lose their end.
    """

    store: RowStore
    refusals: Refusals
    renderer: Renderer
    method: Method
    rewarded: RewardedRows
    seen: Callable[[int, int], None]
    masking: Masking | None = None
    group_field: str | None = None
    stratify_field: str | None = None
    expected_bytes: int = field(default=0, init=False)
    truncated: int = field(default=0, init=False)
    _chats: bool | None = field(default=None, init=False)

    def take(self, rows: Iterable[SourceRow | RefusedRow], *, held_out: bool = False) -> None:
        """Take all rows of a set.

        Args:
            held_out: they are a validation set of its own.

        Raises:
            UserError: the model's template can't render them, or doesn't tell their answers apart.
            DataError: a file is damaged as a whole.
        """
        for batch in _batches(rows, BATCH_ROWS):
            self._take_batch(batch, held_out)
            rows = len(self.store) + self.refusals.rows
            self.seen(rows, max(rows, self._expected_rows()))

    def _expected_rows(self) -> int:
        """By the size of rows so far, as if the files were not compressed."""
        return self.expected_bytes * len(self.store) // max(1, self.store.bytes)

    def _take_batch(self, batch: list[SourceRow | RefusedRow], held_out: bool) -> None:
        good = [row for row in batch if isinstance(row, SourceRow)]
        learned = self._learned(good)
        lengths = iter(measure(learned, self.renderer, self.method))
        rows = iter(learned)
        kept = []
        for source in batch:
            if isinstance(source, RefusedRow):
                self.refusals.add(source)
                continue
            row, length = next(rows), next(lengths)
            if isinstance(length, Problem):
                finding = length.at(source.file, source.line)
                self.refusals.add(RefusedRow(source.file, source.line, row, (finding,)))
                continue
            self.truncated += is_cut(length, self.method)
            kept.append(self._stored(source, row, length, held_out))
        self.store.append(kept)

    def _learned(self, sources: list[SourceRow]) -> list[Row]:
        """The rows as they are learned from, once they are known to be alike and fit for the template."""
        if not sources:
            return []
        self._require_likeness(sources[0])
        self._require_template(sources[0].row)
        learned = [self._masked(source) for source in sources]
        self.rewarded.see(learned)
        return learned

    def _masked(self, source: SourceRow) -> Row:
        """The row without what is personal; the check is told where it was."""
        if self.masking is None:
            return source.row
        masked, found = self.masking.finder.mask_row(source.row)
        if found:
            record = Record(len(self.store), source.file, source.line, source.row)
            self.masking.check.note(record, masked, found)
        return masked

    def _stored(self, source: SourceRow, row: Row, length: int, held_out: bool) -> Stored:
        kept = source.kept
        return Stored(
            file=source.file,
            line=source.line,
            row=row,
            tokens=length,
            group=kept.get(self.group_field, "") if self.group_field else source.document,
            stratum=kept.get(self.stratify_field, "") if self.stratify_field else "",
            held_out=held_out,
        )

    def _require_likeness(self, source: SourceRow) -> None:
        """All files hold text, or all hold messages: a column has one type. Within one it is checked row by row."""
        chats = is_conversational(source.row)
        if self._chats is None:
            self._chats = chats
        elif self._chats is not chats:
            forms = ("text", "messages")
            found = f"{source.file} holds {forms[chats]}, and files before it hold {forms[not chats]}"
            raise DataError("WrongFormat", f"{found}: write all rows as text, or all as messages")

    def _require_template(self, row: Row) -> None:
        """Rows of messages need a template under which the answers that are learned can be told apart."""
        if is_conversational(row) and not len(self.store):
            self.renderer.require_chat(every_turn="messages" in row)


def _batches(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
