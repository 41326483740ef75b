"""Labeled rows on an Argilla server."""

from pydantic import Field

from tunesmith_contract.labels import LabelAggregate, LabelOutput

from .common import StrictModel
from .uris import HttpUrl


class ArgillaSource(StrictModel):
    """Records that people labeled on an Argilla server, sent there with `labels push`."""

    url: HttpUrl = Field(description="The URL of the Argilla server, such as http://argilla.labels.svc:6900.")
    dataset: str = Field(min_length=1, max_length=200, description="The name of the dataset on the server.")
    workspace: str | None = Field(
        None,
        max_length=200,
        description="The Argilla workspace of the dataset. Required if the server has datasets of this name in "
        "several workspaces.",
    )
    aggregate: LabelAggregate = Field(
        LabelAggregate.MAJORITY,
        description="The handling of several annotators. Majority: one row by majority vote; a tie is dropped. "
        "All: one row for each response.",
    )
    min_annotators: int = Field(
        1,
        ge=1,
        le=100,
        description="The minimum number of annotators of a row. Rows with fewer responses are dropped.",
    )
    output: LabelOutput = Field(
        LabelOutput.APPROVED,
        description="The rows made from rated answers. Approved: only approved answers, as rows to learn from. "
        "Unpaired: all answers, with a label that is true for approved ones, for method kto.",
    )
    approve_from: int | None = Field(
        None,
        ge=1,
        le=10,
        description="The lowest rating of an approved answer. If unset, three quarters of the rating scale.",
    )
