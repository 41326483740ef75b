"""What makes an answer good, for methods that learn from answers that the model makes itself."""

from typing import Annotated

from pydantic import Field

from .common import FineTuneJobRef, SecretName, StrictModel
from .filter_rewards import FILTER_KINDS, MAX_REWARDS, FilterReward
from .rules import Rule, exactly_one, keyed_by
from .sources import STORE_KEYS, ModelLocation
from .uris import TrainedModelUri
from .values import DigestString

KINDS = (*FILTER_KINDS, "model")


class ModelReward(StrictModel):
    """The number that a reward model gives: one of method.reward, or any sequence classifier with one output."""

    rules = (
        exactly_one(
            ("uri", "fine_tune_job_ref"),
            "Name the reward model in one way: fineTuneJobRef: {name: …}, or uri.",
        ),
        Rule(
            "has(self.uri) || (!has(self.digest) && !has(self.baseModel))",
            "digest and baseModel are about uri: leave them out with fineTuneJobRef, which brings them along.",
            lambda model: model.uri is not None or (model.digest is None and model.base_model is None),
        ),
    )

    uri: TrainedModelUri | None = Field(
        None, description="Where the artefact, or a whole reward model, lies."
    )
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None, description="The artefact of this FineTuneJob, whose method is reward. This job waits for it."
    )
    digest: DigestString | None = Field(
        None, description="Digest of the artefact at uri; checked when given."
    )
    base_model: ModelLocation | None = Field(
        None,
        description="The model that the artefact at uri was trained on. Absent: uri holds a whole model.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Reward(FilterReward):
    """A reward that may be a reward model's, too."""

    rules = (
        exactly_one(
            KINDS,
            "Say in one way what this reward is: exact, regex, jsonSchema, numeric, length, model, endpoint or "
            "function, such as exact: {}.",
        ),
    )

    model: ModelReward | None = Field(None, description="The number that a reward model gives.")

    @property
    def secret_name(self) -> str | None:
        """The Secret of a reward model or endpoint."""
        opened = self.model or self.endpoint
        return opened.secret_ref.name if opened and opened.secret_ref else None


Rewards = Annotated[
    tuple[Reward, ...],
    Field(min_length=1, max_length=MAX_REWARDS, json_schema_extra=keyed_by("name")),
]
"""Rewards by their names; their weighted sum is what is learned."""
