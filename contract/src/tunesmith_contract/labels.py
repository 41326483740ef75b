"""Labeled rows on an Argilla server, as a source of training data."""

from enum import StrEnum

from pydantic import Field

from .base import Document


class LabelAggregate(StrEnum):
    """Rows from several labels of one item: the majority's, or one for each label."""

    MAJORITY = "Majority"
    ALL = "All"


class LabelOutput(StrEnum):
    """Rows from labeled answers: the approved ones alone, or all of them with a label (for KTO)."""

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
