"""Rows that people label on an Argilla server, as a source of training data."""

from enum import StrEnum

from pydantic import Field

from .base import Document


class LabelAggregate(StrEnum):
    """Whether an item becomes one row, as most see it, or a row for each answer."""

    MAJORITY = "Majority"
    ALL = "All"


class LabelOutput(StrEnum):
    """What becomes of judged answers: the approved rows alone, or all of them with a label (for KTO)."""

    APPROVED = "Approved"
    UNPAIRED = "Unpaired"


class ArgillaSource(Document):
    """A dataset that was pushed to an Argilla server by ``tunesmith-data labels push``.

    Attributes:
        workspace: the dataset's; None where the server has only one.
        min_annotators: answers that a row needs.
        approve_from: the lowest rating of a good answer; None for three quarters of the scale.
    """

    url: str
    dataset: str
    workspace: str | None = None
    aggregate: LabelAggregate = LabelAggregate.MAJORITY
    min_annotators: int = Field(1, ge=1)
    output: LabelOutput = LabelOutput.APPROVED
    approve_from: int | None = Field(None, ge=1)
