"""Learning to judge: a reward model from pairs of a better and a worse answer (Bradley-Terry)."""

from typing import Any

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import Training
from tunesmith_trainer.train.models import REWARD_HEAD

from .validation import WeightedValidation


class _RewardTrainer(WeightedValidation, RewardTrainer):
    def weigh(self, inputs: dict[str, Any]) -> int:
        """Pairs."""
        return len(inputs["input_ids"]) // 2


def build_reward_trainer(training: Training) -> RewardTrainer:
    """TRL's RewardTrainer on rows that are tokenised here as prepare counted them."""
    method = training.config.method.reward
    assert method is not None
    rows, renderer = training.rows, training.renderer
    trainer = _RewardTrainer(
        model=training.model,
        args=RewardConfig(
            **common_arguments(training),
            # Rows are cut here: TRL would leave out those that are longer.
            max_length=None,
            center_rewards_coefficient=method.center_rewards_coefficient,
        ),
        train_dataset=build_conversations(renderer, rows.train, method.max_length),
        eval_dataset=build_conversations(renderer, rows.validation, method.max_length)
        if rows.validation
        else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )
    # DeepSpeed shares out parameters of one type only.
    if not trainer.is_deepspeed_enabled:
        _keep_head_precise(trainer.model)
    return trainer


def _keep_head_precise(model: Any) -> None:
    """TRL turns all that is trained beside 4-bit weights to bfloat16; the head is a usual layer, fed as it is."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and REWARD_HEAD in name.split("."):
            parameter.data = parameter.data.float()


def build_conversations(renderer: Renderer, rows: tuple[Row, ...], max_length: int) -> Dataset:
    """Each prompt with either answer, as token ids cut at ``max_length``."""
    pairs = [renderer.pair(row) for row in rows]
    return Dataset.from_dict(
        {
            "chosen_ids": [(pair.prompt + pair.chosen)[:max_length] for pair in pairs],
            "rejected_ids": [(pair.prompt + pair.rejected)[:max_length] for pair in pairs],
        }
    )
