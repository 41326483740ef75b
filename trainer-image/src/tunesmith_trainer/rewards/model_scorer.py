"""Rewards by a reward model: its number for each answer behind its prompt."""

from tunesmith_contract.methods import ModelReward
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import RenderError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rewards.reward_function import Batch, Scorer


def build_model(name: str, spec: ModelReward, storage: Storage) -> Scorer:
    """Scorer of a reward model's artifact, verified.

    Raises:
        UserError: it is no reward model's artifact, or not the one that was meant.
    """
    # Imported here: it brings torch along, which a run without reward models need not wait for.
    from .reward_model import load_reward_model

    model = load_reward_model(storage, spec.uri, spec.base_model, spec.digest)

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.prompts, batch.arguments["completions"], strict=True)
        try:
            return model.score([{"prompt": prompt, "completion": completion} for prompt, completion in pairs])
        except RenderError as error:
            message = f"reward {name}: the reward model's chat template refuses a conversation: {error}"
            raise UserError("ChatTemplate", message) from error

    return score
