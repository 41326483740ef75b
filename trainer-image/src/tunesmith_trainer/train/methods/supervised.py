"""Learning given tokens: supervised fine-tuning, and continued pre-training on plain text."""

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
from tunesmith_trainer.train.context import Training
from tunesmith_trainer.train.kernels import Batching, choose_batching

from .validation import WeightedValidation

_IGNORED = -100
#: Fewer tokens of a text's end predict nothing.
_LEAST_PIECE = 2


class TokenTrainer(WeightedValidation, SFTTrainer):
    """TRL's trainer, with a validation loss per token as the training loss is."""

    def weigh(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The tokens that are learned."""
        tokens: torch.Tensor = (inputs["labels"][:, 1:] != _IGNORED).sum()
        return tokens


def build_sft_trainer(training: Training) -> SFTTrainer:
    """A trainer on rows that are tokenised here as prepare counted them."""
    method = training.config.method.sft
    assert method is not None
    rows = training.rows
    return _build_trainer(
        training,
        method,
        build_dataset(training.renderer, rows.train, method),
        build_dataset(training.renderer, rows.validation, method) if rows.validation else None,
    )


def build_pretraining_trainer(training: Training) -> SFTTrainer:
    """A trainer on the pieces of plain texts."""
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
    """Rows as token ids and labels, cut at ``max_length``."""
    tokens = [renderer.tokens(row) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [row.ids[: method.max_length] for row in tokens],
            "labels": [row.labels(method.assistant_only_loss)[: method.max_length] for row in tokens],
        }
    )


def build_text_dataset(renderer: Renderer, rows: Iterable[Row], max_length: int) -> Dataset:
    """Texts as token ids, each cut into pieces of ``max_length``; every token counts, and the end is one."""
    pieces = [piece for row in rows for piece in _cut(renderer.tokens(row).ids, max_length)]
    return Dataset.from_dict({"input_ids": pieces, "labels": pieces})


def _cut(ids: Iterable[int], length: int) -> Iterator[list[int]]:
    stream = iter(ids)
    while len(piece := list(islice(stream, length))) >= _LEAST_PIECE:
        yield piece


def _build_trainer(
    training: Training, method: SFTMethod | PretrainingMethod, train: Dataset, validation: Dataset | None
) -> SFTTrainer:
    arguments = common_arguments(training)
    batching = choose_batching(
        training.kernels, packing=method.packing, micro_batch=arguments["per_device_train_batch_size"]
    )
    return TokenTrainer(
        model=training.model,
        args=SFTConfig(**_batched(arguments, batching), **_lengths(method, batching)),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


def _batched(arguments: dict[str, Any], batching: Batching) -> dict[str, Any]:
    """One row per pass where attention needs it; the effective batch stays."""
    return one_row_per_pass(arguments) if batching.single else arguments


def _lengths(method: SFTMethod | PretrainingMethod, batching: Batching) -> dict[str, Any]:
    """Rows are cut already; TRL wants a length for packing, and none where rows are only laid end to end."""
    return {
        "max_length": method.max_length if batching.packing else None,
        "packing": batching.packing,
        "packing_strategy": "bfd",
        "padding_free": batching.padding_free,
        "eval_packing": False,
    }
