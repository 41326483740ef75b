"""Rows in memory, for the checks that learn a model or tell a language."""

from dataclasses import dataclass

from .row_views import RowView

#: Rows that models learn from and languages are told of, and how much of each text of them.
SAMPLE_ROWS = 20_000
SAMPLE_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class SampledRow:
    """The beginnings of a row's texts."""

    position: int
    question: str
    answer: str
    rejected: str
    label: bool | None


def sampled(view: RowView) -> SampledRow:
    """The beginnings of a row's texts."""
    return SampledRow(
        view.position,
        _beginning(view.question),
        _beginning(view.answer),
        _beginning(view.rejected),
        view.label,
    )


def _beginning(text: str) -> str:
    """What models see of a text; halves of characters, which no encoding takes, are replaced."""
    return text[:SAMPLE_CHARACTERS].encode("utf-8", "replace").decode()
