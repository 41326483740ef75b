"""Record: a row with its index, place, token count, group and stratum."""

from dataclasses import dataclass
from enum import StrEnum

from tunesmith_data.rows.findings import RowPlace
from tunesmith_data.rows.schema.formats import Row


class RowSide(StrEnum):
    """Side of a row; the counts of all sides add up to the rows that were read."""

    TRAIN = "train"
    VALIDATION = "validation"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "nearDuplicate"
    LEAKED = "leaked"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Record:
    """A row that passed its checks.

    Attributes:
        index: its number among all such rows, from 0.
        file, line: place of the row.
        row: in canonical form.
        tokens: number of tokens, as rendered for the method.
        group, stratum: values of the fields that decide the split; empty if there are none.
    """

    index: int
    file: str
    line: int
    row: Row
    tokens: int = 0
    group: str = ""
    stratum: str = ""

    @property
    def place(self) -> RowPlace:
        """Place of the row."""
        return RowPlace(file=self.file, line=self.line)
