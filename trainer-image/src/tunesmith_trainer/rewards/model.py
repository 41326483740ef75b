"""What a reward model thinks of an answer."""

from collections.abc import Sequence
from typing import Protocol

from tunesmith_contract.methods import ModelReward
from tunesmith_trainer.data.formats import Row
from tunesmith_trainer.storage import Storage

from .base import Batch, Scorer
from .build import ModelLoader


class RewardModel(Protocol):
    """Judges conversations and texts."""

    def score(self, rows: Sequence[Row]) -> list[float]:
        """A number per row of ``prompt`` and ``completion``, each text or messages."""
        ...


def score_by(model: RewardModel) -> Scorer:
    """The model's number for each answer behind its prompt."""

    def score(batch: Batch) -> list[float]:
        completions = batch.arguments["completions"]
        pairs = zip(batch.prompts, completions, strict=True)
        return model.score([{"prompt": prompt, "completion": completion} for prompt, completion in pairs])

    return score


def reward_model_loader(storage: Storage) -> ModelLoader:
    """Loads reward models, their artefacts verified, from where they lie."""

    def load(name: str, spec: ModelReward) -> Scorer:
        raise NotImplementedError

    return load
