"""From files to the store: rows are checked, measured and kept; what is wrong with others is written down."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from tunesmith_contract.methods import Method
from tunesmith_data.failures import DataError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.token_counts import is_cut, measure
from tunesmith_data.rewards.build import RewardedRows
from tunesmith_data.rows.clean.personal_data import PersonalData, PersonalDataFinder
from tunesmith_data.rows.findings import Problem
from tunesmith_data.rows.reading import RefusedRow, SourceRow
from tunesmith_data.rows.schema.formats import Row, is_conversational
from tunesmith_data.rows.table.record import Record
from tunesmith_data.rows.table.row_store import BATCH_BYTES, BATCH_ROWS, RowStore, Stored

from .refused_rows import Refusals
from .subprocess_isolation import Apart

Value = TypeVar("Value")

#: How long rows are is not known yet.
_FIRST_ROWS = 64
#: One that is being counted, and one that is read meanwhile.
_BATCHES_AHEAD = 2


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
        renderer, method: count rows' tokens, beside this process.
        rewarded: sees what is to be rewarded.
        masking: takes personal data out of rows, where that is wanted.
        group_field, stratify_field: which values of a row the split goes by.
        seen: is told after each batch how many rows there are, and about how many there will be.
        expected_bytes: size of the files, as far as it is known.
        truncated: rows that lose their end.
    """

    store: RowStore
    refusals: Refusals
    renderer: Apart[Renderer]
    method: Method
    rewarded: RewardedRows
    seen: Callable[[int, int], None]
    masking: Masking | None = None
    group_field: str | None = None
    stratify_field: str | None = None
    expected_bytes: int = field(default=0, init=False)
    truncated: int = field(default=0, init=False)
    _chats: bool | None = field(default=None, init=False)
    _template_known: bool = field(default=False, init=False)

    def take(self, rows: Iterable[SourceRow | RefusedRow], *, held_out: bool = False) -> None:
        """Take all rows of a set.

        While the tokens of some rows are counted, the next ones are read.

        Args:
            held_out: they are a validation set of its own.

        Raises:
            UserError: the model's template can't render them, or doesn't tell their answers apart.
            DataError: a file is damaged as a whole; the rows before that are taken.
        """
        counted: deque[_Batch] = deque()
        try:
            for batch in _batches(rows, self._batch_rows):
                counted.append(self._start(batch))
                if len(counted) == _BATCHES_AHEAD:
                    self._finish(counted.popleft(), held_out)
        except DataError:
            self._finish_all(counted, held_out)
            raise
        self._finish_all(counted, held_out)

    def _batch_rows(self) -> int:
        """As many as are counted at a time: long rows are few, so that they fit into memory."""
        if not len(self.store):
            return _FIRST_ROWS
        return max(1, min(BATCH_ROWS, BATCH_BYTES * len(self.store) // max(1, self.store.size_bytes)))

    def _expected_rows(self) -> int:
        """By the size of rows so far, as if the files were not compressed."""
        return self.expected_bytes * len(self.store) // max(1, self.store.size_bytes)

    def _start(self, outcomes: list[SourceRow | RefusedRow]) -> "_Batch":
        good = [row for row in outcomes if isinstance(row, SourceRow)]
        learned = self._learned(good)
        return _Batch(outcomes, learned, self.renderer.submit(measure, learned, self.method))

    def _finish_all(self, batches: Iterable["_Batch"], held_out: bool) -> None:
        for batch in batches:
            self._finish(batch, held_out)

    def _finish(self, batch: "_Batch", held_out: bool) -> None:
        lengths, rows = iter(batch.lengths.result()), iter(batch.learned)
        kept = []
        for source in batch.outcomes:
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
        done = len(self.store) + self.refusals.rows
        self.seen(done, max(done, self._expected_rows()))

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
        if is_conversational(row) and not self._template_known:
            self._template_known = True
            self.renderer.submit(Renderer.require_chat, every_turn="messages" in row).result()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows whose tokens are being counted.

    Attributes:
        outcomes: as they were read.
        learned: those that passed their checks, as they are learned from.
        lengths: of each of those, what ``measure`` says.
    """

    outcomes: list[SourceRow | RefusedRow]
    learned: list[Row]
    lengths: "Future[list[int | Problem]]"


def _batches(values: Iterable[Value], size: Callable[[], int]) -> Iterator[list[Value]]:
    """Values in lists of a size that is asked for each time; those before an error come, too."""
    batch: list[Value] = []
    limit = size()
    try:
        for value in values:
            batch.append(value)
            if len(batch) >= limit:
                yield batch
                batch, limit = [], size()
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
