"""Rows that people label on an Argilla server."""

from pydantic import Field

from tunesmith_contract.labels import LabelAggregate, LabelOutput

from .common import StrictModel
from .uris import HttpUrl


class ArgillaSource(StrictModel):
    """What people answered about rows that ``labels push`` sent to an Argilla server."""

    url: HttpUrl = Field(description="The server's address, such as http://argilla.labels.svc:6900.")
    dataset: str = Field(min_length=1, max_length=200, description="The dataset's name on the server.")
    workspace: str | None = Field(
        None, max_length=200, description="The dataset's workspace. Needed where the server has several."
    )
    aggregate: LabelAggregate = Field(
        LabelAggregate.MAJORITY,
        description="Majority: a row as most people see it; a draw is left out. All: a row for each answer.",
    )
    min_annotators: int = Field(
        1, ge=1, le=100, description="Rows that fewer people have answered are left out."
    )
    output: LabelOutput = Field(
        LabelOutput.APPROVED,
        description="What becomes of answers that people judged. Approved: the good ones, to learn from. "
        "Unpaired: all, with a label that says whether they are good, for kto.",
    )
    approve_from: int | None = Field(
        None,
        ge=1,
        le=10,
        description="The lowest rating of a good answer. Absent: three quarters of the scale.",
    )
