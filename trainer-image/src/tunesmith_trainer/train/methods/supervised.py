"""Supervised fine-tuning trainer, and continued pre-training on plain text."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from tunesmith_contract.methods import PretrainingMethod, SFTMethod
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.train.arguments import common_arguments, one_row_per_pass
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.kernels import choose_batching

from .trainer_mixins import SavedCheckpoints, WeightedValidation

#: Label of tokens without loss (torch.nn.CrossEntropyLoss).
_IGNORE_INDEX = -100
#: A single token at the end of a text predicts nothing.
_MIN_PIECE_TOKENS = 2


class TokenTrainer(SavedCheckpoints, WeightedValidation, SFTTrainer):
    """TRL's SFTTrainer with the validation loss averaged over tokens, as the training loss is."""

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Number of tokens with a label, after the shift by one; a scalar tensor."""
        tokens: torch.Tensor = (inputs["labels"][:, 1:] != _IGNORE_INDEX).sum()
        return tokens


def build_sft_trainer(training: TrainingContext) -> SFTTrainer:
    """Build TRL's SFTTrainer on rows that are tokenized here, exactly as prepare counted them."""
    method = training.config.method.sft
    assert method is not None
    rows = training.rows
    return _build_trainer(
        training,
        method,
        build_dataset(training.renderer, rows.train, method),
        build_dataset(training.renderer, rows.validation, method) if rows.validation else None,
    )


def build_pretraining_trainer(training: TrainingContext) -> SFTTrainer:
    """Build TRL's SFTTrainer on plain texts, cut into pieces of ``maxLength``."""
    method = training.config.method.pretraining
    assert method is not None
    rows = training.rows
    return _build_trainer(
        training,
        method,
        build_text_dataset(training.renderer, rows.train, method.max_length),
        build_text_dataset(training.renderer, rows.validation, method.max_length)
        if rows.validation
        else None,
    )


def build_dataset(renderer: Renderer, rows: Iterable[Row], method: SFTMethod) -> Dataset:
    """Data set of ``input_ids`` and ``labels``, cut at ``max_length``."""
    tokens = [renderer.tokens(row) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [row.ids[: method.max_length] for row in tokens],
            "labels": [row.labels(method.assistant_only_loss)[: method.max_length] for row in tokens],
        }
    )


def build_text_dataset(renderer: Renderer, rows: Iterable[Row], max_length: int) -> Dataset:
    """Data set of texts cut into pieces of ``max_length`` tokens, with a loss on every token and the end token."""
    pieces = [piece for row in rows for piece in _split(renderer.tokens(row).ids, max_length)]
    return Dataset.from_dict({"input_ids": pieces, "labels": pieces})


def _split(ids: Iterable[int], length: int) -> Iterator[list[int]]:
    stream = iter(ids)
    while len(piece := list(islice(stream, length))) >= _MIN_PIECE_TOKENS:
        yield piece


def _build_trainer(
    training: TrainingContext,
    method: SFTMethod | PretrainingMethod,
    train: Dataset,
    validation: Dataset | None,
) -> SFTTrainer:
    arguments = common_arguments(training)
    batching = choose_batching(
        training.kernels, packing=method.packing, micro_batch=arguments["per_device_train_batch_size"]
    )
    return TokenTrainer(
        model=training.model,
        args=SFTConfig(
            **(one_row_per_pass(arguments) if batching.single_row else arguments),
            # Rows are truncated already; TRL needs a length for packing only.
            max_length=method.max_length if batching.packing else None,
            packing=batching.packing,
            packing_strategy="bfd",
            padding_free=batching.padding_free,
            eval_packing=False,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )
