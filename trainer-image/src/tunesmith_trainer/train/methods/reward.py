"""Reward model trainer: Bradley-Terry loss on pairs of a chosen and a rejected answer."""

from typing import Any

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.models import REWARD_HEAD

from .trainer_mixins import SavedCheckpoints, WeightedValidation


class _RewardTrainer(SavedCheckpoints, WeightedValidation, RewardTrainer):
    def batch_weight(self, inputs: dict[str, Any]) -> int:
        """Number of pairs in the batch."""
        return len(inputs["input_ids"]) // 2


def build_reward_trainer(training: TrainingContext) -> RewardTrainer:
    """Build TRL's RewardTrainer on rows that are tokenized here, exactly as prepare counted them."""
    method = training.config.method.reward
    assert method is not None
    rows, renderer = training.rows, training.renderer
    trainer = _RewardTrainer(
        model=training.model,
        args=RewardConfig(
            **common_arguments(training),
            # Rows are truncated here: TRL would drop longer ones.
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
    # TRL casts all trained parameters beside 4-bit weights to bfloat16, but the output layer has to stay in float32.
    # DeepSpeed partitions parameters of one type only.
    if not trainer.is_deepspeed_enabled:
        model: Any = trainer.model
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and REWARD_HEAD in name.split("."):
                parameter.data = parameter.data.float()
    return trainer


def build_conversations(renderer: Renderer, rows: tuple[Row, ...], max_length: int) -> Dataset:
    """Data set of token ids ``chosen_ids`` and ``rejected_ids``: prompt and answer, cut at ``max_length``."""
    pairs = [renderer.pair(row) for row in rows]
    return Dataset.from_dict(
        {
            "chosen_ids": [(pair.prompt + pair.chosen)[:max_length] for pair in pairs],
            "rejected_ids": [(pair.prompt + pair.rejected)[:max_length] for pair in pairs],
        }
    )
