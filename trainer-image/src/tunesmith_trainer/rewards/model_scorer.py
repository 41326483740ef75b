"""Reward function that scores completions with a reward model."""

from tunesmith_contract.methods import ModelReward
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import RenderError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rewards.reward_function import Batch, Scorer
from tunesmith_trainer.gpu.device import Device


def build_model_scorer(
    name: str, spec: ModelReward, storage: Storage, *, device: Device, read_files: bool = True
) -> Scorer:
    """Reward function of a reward-model artifact: one float per prompt and completion.

    Args:
        read_files: verify the artifact's files; one of several workers is enough, if the others wait for it.

    Raises:
        UserError: the artifact is not a reward model, or its digest differs from the given one.
    """
    # Imported here: it imports torch, which takes seconds that a run without reward models can save.
    from .reward_model import load_reward_model

    model = load_reward_model(
        storage, spec.uri, spec.base_model, spec.digest, device=device, read_files=read_files
    )

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.prompts, batch.arguments["completions"], strict=True)
        try:
            return model.score([{"prompt": prompt, "completion": completion} for prompt, completion in pairs])
        except RenderError as error:
            message = f"reward {name}: the reward model's chat template rejects a conversation: {error}"
            raise UserError("ChatTemplate", message) from error

    return score
