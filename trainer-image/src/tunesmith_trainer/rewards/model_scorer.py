"""What a reward model thinks of an answer."""

from tunesmith_contract.methods import ModelReward
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import RenderError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rewards.reward_function import Batch, Scorer

from .reward_model import RewardModel, load_reward_model


def build_model(name: str, spec: ModelReward, storage: Storage) -> Scorer:
    """What a reward model's artefact says, verified.

    Raises:
        UserError: it is no reward model's artefact, or not the one that was meant.
    """
    return score_by(name, load_reward_model(storage, spec.uri, spec.base_model, spec.digest))


def score_by(name: str, model: RewardModel) -> Scorer:
    """The model's number for each answer behind its prompt."""

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.prompts, batch.arguments["completions"], strict=True)
        try:
            return model.score([{"prompt": prompt, "completion": completion} for prompt, completion in pairs])
        except RenderError as error:
            message = f"reward {name}: the reward model's chat template refuses a conversation: {error}"
            raise UserError("ChatTemplate", message) from error

    return score
