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
    """The score of a reward model: one trained with method.reward, or any sequence classifier with one output."""

    rules = (
        exactly_one(
            ("uri", "fine_tune_job_ref"),
            "Set exactly one source of the reward model: fineTuneJobRef: {name: …}, or uri.",
        ),
        Rule(
            "has(self.uri) || (!has(self.digest) && !has(self.baseModel))",
            "digest and baseModel belong to uri: leave them out with fineTuneJobRef, whose job provides "
            "them.",
            lambda model: model.uri is not None or (model.digest is None and model.base_model is None),
        ),
    )

    uri: TrainedModelUri | None = Field(
        None, description="The location of a reward artifact, or of a complete reward model."
    )
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="The FineTuneJob with method reward whose artifact is used. This job waits until that job has"
        " succeeded.",
    )
    digest: DigestString | None = Field(
        None, description="The digest of the artifact at uri. If set, it is verified."
    )
    base_model: ModelLocation | None = Field(
        None,
        description="The model that the artifact at uri was trained on. If unset, uri holds a complete model.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Reward(FilterReward):
    """A reward that gives each answer a number. Exactly one member besides name and weight must be set."""

    rules = (
        exactly_one(
            KINDS,
            "Set exactly one kind of reward: exact, regex, jsonSchema, numeric, length, model, endpoint "
            "or function, such as exact: {}.",
        ),
    )

    model: ModelReward | None = Field(None, description="The score of a reward model.")

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
