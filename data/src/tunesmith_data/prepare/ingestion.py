"""Ingestion of rows: checks, token counts, masking, storage; invalid rows are recorded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from tunesmith_contract.methods import Method
from tunesmith_data.failures import DataError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.token_counts import count_tokens, is_cut
from tunesmith_data.rewards.build import RewardedRows
from tunesmith_data.rows.clean.personal_data import PersonalDataCheck, PersonalDataFinder
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.reading import InvalidRow, SourceRow
from tunesmith_data.rows.schema.formats import Row, is_conversational
from tunesmith_data.rows.table.record import Record
from tunesmith_data.rows.table.row_store import BATCH_BYTES, BATCH_ROWS, RowStore, StoredRow

from .invalid_rows import InvalidRows
from .subprocess_isolation import IsolatedObject

Value = TypeVar("Value")

#: Rows of the first batch, whose length is not known yet.
_FIRST_ROWS = 64
#: Batches in progress: one is counted while the next is read.
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Masking:
    """Masking of personal data, and the check that records it."""

    finder: PersonalDataFinder
    check: PersonalDataCheck


@dataclass(slots=True)
class RowIngestion:
    """Ingestion of rows in batches.

    Attributes:
        store: keeps those that can be learned from.
        invalid_rows: records the others.
        renderer, method: count rows' tokens, beside this process.
        rewarded: sees what is to be rewarded.
        masking: takes personal data out of rows, where that is wanted.
        group_field, stratify_field: fields whose values decide the split.
        report_rows: called after each batch with the number of rows, and the expected total.
        expected_bytes: size of the files, as far as it is known.
        truncated: rows that lose their end.
    """

    store: RowStore
    invalid_rows: InvalidRows
    renderer: IsolatedObject[Renderer]
    method: Method
    rewarded: RewardedRows
    report_rows: Callable[[int, int], None]
    masking: Masking | None = None
    group_field: str | None = None
    stratify_field: str | None = None
    expected_bytes: int = field(default=0, init=False)
    truncated: int = field(default=0, init=False)
    _chats: bool | None = field(default=None, init=False)
    _template_known: bool = field(default=False, init=False)

    def ingest(self, rows: Iterable[SourceRow | InvalidRow], *, held_out: bool = False) -> None:
        """Ingest all rows of a set.

        While the tokens of some rows are counted, the next ones are read.

        Args:
            held_out: the rows are a separate validation set.

        Raises:
            UserError: the model's template can't render the rows, or their answers can't be located by it.
            DataError: a file is damaged as a whole; the rows before that are kept.
        """
        counted: deque[_Batch] = deque()
        try:
            for batch in _batches(rows, self._batch_rows):
                learned = self._prepare_rows([row for row in batch if isinstance(row, SourceRow)])
                lengths = self.renderer.submit(count_tokens, learned, self.method)
                counted.append(_Batch(batch, learned, lengths))
                if len(counted) == _BATCHES_AHEAD:
                    self._finish(counted.popleft(), held_out)
        except DataError:
            self._finish_all(counted, held_out)
            raise
        self._finish_all(counted, held_out)

    def _batch_rows(self) -> int:
        """Rows of the next batch; few for long rows, so that they fit into memory."""
        if not len(self.store):
            return _FIRST_ROWS
        return max(1, min(BATCH_ROWS, BATCH_BYTES * len(self.store) // max(1, self.store.size_bytes)))

    def _finish_all(self, batches: Iterable["_Batch"], held_out: bool) -> None:
        for batch in batches:
            self._finish(batch, held_out)

    def _finish(self, batch: "_Batch", held_out: bool) -> None:
        lengths, rows = iter(batch.lengths.result()), iter(batch.learned)
        kept = []
        for source in batch.outcomes:
            if isinstance(source, InvalidRow):
                self.invalid_rows.add(source)
                continue
            row, length = next(rows), next(lengths)
            if isinstance(length, Finding):
                finding = length.at(source.file, source.line)
                self.invalid_rows.add(InvalidRow(source.file, source.line, row, (finding,)))
                continue
            self.truncated += is_cut(length, self.method)
            kept.append(self._stored(source, row, length, held_out))
        self.store.append(kept)
        done = len(self.store) + self.invalid_rows.rows
        # Estimated from the size of rows so far; compression is ignored.
        expected = self.expected_bytes * len(self.store) // max(1, self.store.size_bytes)
        self.report_rows(done, max(done, expected))

    def _prepare_rows(self, sources: list[SourceRow]) -> list[Row]:
        """Rows after masking, checked for a uniform format and for the chat template."""
        if not sources:
            return []
        self._require_same_form(sources[0])
        self._require_template(sources[0].row)
        learned = [self._mask(source) for source in sources]
        self.rewarded.update(learned)
        return learned

    def _mask(self, source: SourceRow) -> Row:
        """Row with personal data masked and recorded."""
        if self.masking is None:
            return source.row
        masked, kinds = self.masking.finder.mask_row(source.row)
        if kinds:
            record = Record(len(self.store), source.file, source.line, source.row)
            self.masking.check.note(record, masked, kinds)
        return masked

    def _stored(self, source: SourceRow, row: Row, length: int, held_out: bool) -> StoredRow:
        kept = source.kept
        return StoredRow(
            file=source.file,
            line=source.line,
            row=row,
            tokens=length,
            group=kept.get(self.group_field, "") if self.group_field else source.document,
            stratum=kept.get(self.stratify_field, "") if self.stratify_field else "",
            held_out=held_out,
        )

    def _require_same_form(self, source: SourceRow) -> None:
        """Check that all files contain text, or all messages; within a file each row is checked."""
        chats = is_conversational(source.row)
        if self._chats is None:
            self._chats = chats
        elif self._chats is not chats:
            forms = ("text", "messages")
            difference = f"{source.file} holds {forms[chats]}, and files before it hold {forms[not chats]}"
            raise DataError("WrongFormat", f"{difference}: write all rows as text, or all as messages")

    def _require_template(self, row: Row) -> None:
        """Check that the chat template locates the answers in rows of messages."""
        if is_conversational(row) and not self._template_known:
            self._template_known = True
            self.renderer.submit(Renderer.require_chat, every_turn="messages" in row).result()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Batch of rows whose tokens are being counted.

    Attributes:
        outcomes: rows and findings from the reader.
        learned: rows that passed their checks, in the form that is trained on.
        lengths: result of ``count_tokens`` for each learned row.
    """

    outcomes: list[SourceRow | InvalidRow]
    learned: list[Row]
    lengths: "Future[list[int | Finding]]"


def _batches(values: Iterable[Value], size: Callable[[], int]) -> Iterator[list[Value]]:
    """Values in batches of a variable size; values before an error are included."""
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
