"""What a reward model thinks of an answer."""

from tunesmith_contract.methods import ModelReward
from tunesmith_trainer.data.render import RenderError
from tunesmith_trainer.failures import UserError
from tunesmith_trainer.reward_model import RewardModel, load_reward_model
from tunesmith_trainer.storage import Storage

from .base import Batch, Scorer
from .build import ModelLoader


def reward_model_loader(storage: Storage) -> ModelLoader:
    """Loads reward models, their artefacts verified, from where they lie."""

    def load(name: str, spec: ModelReward) -> Scorer:
        model = load_reward_model(storage, spec.uri, spec.base_model, spec.digest)
        return score_by(name, model)

    return load


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
