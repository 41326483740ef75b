"""Learning given tokens: supervised fine-tuning, and continued pre-training on plain text."""

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from tunesmith_contract.methods import SFTMethod
from tunesmith_trainer.data.formats import Row
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import Training


def build_sft_trainer(training: Training) -> SFTTrainer:
    """TRL's SFTTrainer on rows that are tokenised here as prepare counted them."""
    method = training.config.method.sft
    assert method is not None
    rows = training.rows
    return SFTTrainer(
        model=training.model,
        args=SFTConfig(
            **common_arguments(training),
            max_length=method.max_length,
            packing=method.packing,
            eval_packing=False,
        ),
        train_dataset=build_dataset(training.renderer, rows.train, method),
        eval_dataset=build_dataset(training.renderer, rows.validation, method) if rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


def build_dataset(renderer: Renderer, rows: tuple[Row, ...], method: SFTMethod) -> Dataset:
    """Rows as token ids and labels, cut at ``max_length``."""
    tokens = [renderer.tokens(row) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [row.ids[: method.max_length] for row in tokens],
            "labels": [row.labels(method.assistant_only_loss)[: method.max_length] for row in tokens],
        }
    )
