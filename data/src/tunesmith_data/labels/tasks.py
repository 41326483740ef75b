"""Labeling tasks, and the answers that each allows.

==================  ==========================================  ================================================
task                people say                                  what comes out
==================  ==========================================  ================================================
``approve``         yes, no                                     the approved rows, or UnpairedPreference
``rating``          1 to ``scale``                              the well rated rows, or UnpairedPreference
``preference``      A, B, tie                                   Preference
``classification``  one of ``labels``                           the row with the label as its answer
``correction``      a better answer                             the row with that answer
==================  ==========================================  ================================================
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from pydantic import Field, model_validator

from tunesmith_contract.base import Document
from tunesmith_contract.sources import DataFormat
from tunesmith_data.rows.findings import Finding, quote

A, B, TIE = "A", "B", "tie"
YES, NO = "yes", "no"
#: Written instead of an answer by an annotator who cannot decide; the item counts as skipped.
SKIP = "skip"

_ONE_ANSWER = (
    DataFormat.CHAT,
    DataFormat.PROMPT_COMPLETION,
    DataFormat.UNPAIRED_PREFERENCE,
    DataFormat.PROMPT,
)
MAX_LABELS = 500
MAX_SCALE = 10


class TaskKind(StrEnum):
    """Kind of labeling task."""

    APPROVE = "approve"
    RATING = "rating"
    PREFERENCE = "preference"
    CLASSIFICATION = "classification"
    CORRECTION = "correction"


#: The formats of rows that each task takes.
TASK_FORMATS: Mapping[TaskKind, tuple[DataFormat, ...]] = MappingProxyType(
    {
        TaskKind.APPROVE: _ONE_ANSWER,
        TaskKind.RATING: _ONE_ANSWER,
        TaskKind.PREFERENCE: (DataFormat.PREFERENCE,),
        TaskKind.CLASSIFICATION: _ONE_ANSWER,
        TaskKind.CORRECTION: _ONE_ANSWER,
    }
)


class LabelTask(Document):
    """Labeling task: its kind, and the choices.

    Attributes:
        labels: choices of a classification.
        scale: the best rating; the worst is 1.
    """

    kind: TaskKind
    labels: tuple[str, ...] = Field((), max_length=MAX_LABELS)
    scale: int = Field(5, ge=2, le=MAX_SCALE)

    @model_validator(mode="after")
    def _require_labels(self) -> Self:
        if self.kind is TaskKind.CLASSIFICATION:
            folded = {label.strip().casefold() for label in self.labels}
            if len(self.labels) < 2 or len(folded) < len(self.labels) or "" in folded:
                raise ValueError("a classification needs two or more labels that differ by more than case")
            if SKIP in folded:
                raise ValueError(f'"{SKIP}" is what people write who can\'t tell: choose another label')
        return self

    @property
    def choices(self) -> tuple[str, ...]:
        """Choices as annotators see them; empty for free text."""
        match self.kind:
            case TaskKind.APPROVE:
                return YES, NO
            case TaskKind.RATING:
                return tuple(str(number) for number in range(1, self.scale + 1))
            case TaskKind.PREFERENCE:
                return A, B, TIE
            case TaskKind.CLASSIFICATION:
                return self.labels
        return ()

    def read(self, written: str) -> str | Finding:
        """Parsed choice, ignoring case; free text unchanged."""
        if not self.choices:
            return written
        by_folded = {choice.strip().casefold(): choice for choice in self.choices}
        choice = by_folded.get(written.strip().casefold())
        if choice is not None:
            return choice
        listed = ", ".join(self.choices[:10]) + (", …" if len(self.choices) > 10 else "")
        return Finding(
            "unknown_choice", quote(written), f"write one of {listed}, or {SKIP}", member=self.column
        )

    @property
    def column(self) -> str:
        """Name of the column, or question, for the answer."""
        return "correction" if self.kind is TaskKind.CORRECTION else "choice"
