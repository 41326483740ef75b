"""What every check of quality is."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from tunesmith_trainer.data.findings import Issue
from tunesmith_trainer.data.records import Record


class QualityCheck(Protocol):
    """Sees each row that is kept (for training or validation) once, in batches and in order.

    It holds numbers and digests of rows, and a bounded number of rows themselves: there may be millions.
    """

    def see(self, records: Sequence[Record]) -> None:
        """Take the next rows into account."""

    def finish(self) -> Iterator[Issue]:
        """What there is to say of all of them."""
