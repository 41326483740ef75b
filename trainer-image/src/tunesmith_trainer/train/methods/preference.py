"""Preference trainers: DPO on pairs of answers, KTO on single labeled answers.

The reference model is the model before this run: the base with a new adapter switched off, a frozen copy of an earlier
adapter that training continues, or a second copy of the weights for full fine-tuning.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from tunesmith_contract.methods import DPOLoss, DPOMethod, KTOLoss
from tunesmith_contract.shared_rules.defaults import KTO_NEEDS_ROWS, rows_at_once
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.gpu.device import uses_gpu
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.distributed.parallel import micro_batch_size

from .trainer_mixins import PretokenizedDataset, SavedCheckpoints, WeightedValidation

_DPO_LOSSES = {
    DPOLoss.SIGMOID: "sigmoid",
    DPOLoss.HINGE: "hinge",
    DPOLoss.IPO: "ipo",
    DPOLoss.ROBUST: "robust",
    DPOLoss.EXO_PAIR: "exo_pair",
    DPOLoss.NCA_PAIR: "nca_pair",
    DPOLoss.BCO_PAIR: "bco_pair",
    DPOLoss.SPPO_HARD: "sppo_hard",
    DPOLoss.AOT: "aot",
    DPOLoss.APO_ZERO: "apo_zero",
    DPOLoss.APO_DOWN: "apo_down",
    DPOLoss.DISCOPOP: "discopop",
    DPOLoss.SIGMOID_NORM: "sigmoid_norm",
}
_KTO_LOSSES = {KTOLoss.KTO: "kto", KTOLoss.APO_ZERO_UNPAIRED: "apo_zero_unpaired"}
_LOSSES_WITH_SMOOTHING = (DPOLoss.ROBUST, DPOLoss.EXO_PAIR, DPOLoss.AOT)


class _DPOTrainer(SavedCheckpoints, PretokenizedDataset, WeightedValidation, DPOTrainer):
    def batch_weight(self, inputs: dict[str, Any]) -> int:
        """Number of pairs in the batch."""
        return len(inputs["input_ids"]) // 2


class _KTOTrainer(SavedCheckpoints, PretokenizedDataset, WeightedValidation, KTOTrainer):
    def batch_weight(self, inputs: dict[str, Any]) -> int:
        """Number of labeled answers in the batch."""
        return len(inputs["input_ids"])


def build_dpo_trainer(training: TrainingContext) -> DPOTrainer:
    """Build TRL's DPOTrainer on rows that are tokenized here, exactly as prepare counted them.

    Raises:
        UserError: loss and ``labelSmoothing`` can't be combined.
    """
    method = training.config.method.dpo
    assert method is not None
    _check_label_smoothing(method)
    rows, renderer = training.rows, training.renderer
    return _DPOTrainer(
        model=training.model,
        ref_model=load_reference(training),
        args=DPOConfig(
            **common_arguments(training),
            max_length=method.max_length,
            beta=method.beta,
            loss_type=[_DPO_LOSSES[method.loss]],
            label_smoothing=method.label_smoothing,
        ),
        train_dataset=build_pairs(renderer, rows.train),
        eval_dataset=build_pairs(renderer, rows.validation) if rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


def load_reference(training: TrainingContext) -> Any:
    """Second copy of the weights as reference model for full fine-tuning; None with an adapter.

    TRL's own copy would have the type of the trained weights, float32; this one is bfloat16 on a GPU.
    """
    model = training.model
    if training.peft_config is not None or isinstance(model, PeftModel):
        return None
    return AutoModelForCausalLM.from_pretrained(
        model.config.name_or_path,
        dtype=torch.bfloat16 if uses_gpu(training.config) else torch.float32,
        attn_implementation=training.kernels.attention,
        local_files_only=True,
        use_safetensors=True,
    )


def build_pairs(renderer: Renderer, rows: Sequence[Row]) -> Dataset:
    """Data set of token ids: ``prompt_ids``, ``chosen_ids``, ``rejected_ids``; TRL's collator truncates them."""
    pairs = [renderer.pair(row) for row in rows]
    return Dataset.from_dict(
        {
            "prompt_ids": [pair.prompt for pair in pairs],
            "chosen_ids": [pair.chosen for pair in pairs],
            "rejected_ids": [pair.rejected for pair in pairs],
        }
    )


def build_kto_trainer(training: TrainingContext) -> KTOTrainer:
    """Build TRL's KTOTrainer on rows that are tokenized here, exactly as prepare counted them.

    Raises:
        UserError: the micro batch has one answer, but the loss compares several.
    """
    method = training.config.method.kto
    assert method is not None
    numbers, needs_kl = training.config.hyperparameters, method.loss is KTOLoss.KTO
    micro_batch = micro_batch_size(numbers)
    if micro_batch < rows_at_once(training.config.method):
        raise UserError("BatchSize", KTO_NEEDS_ROWS)

    def dataset(rows: Sequence[Row]) -> Dataset:
        answers = label_answers(training.renderer, rows)
        random.Random(numbers.seed).shuffle(answers)
        return build_answer_dataset(answers, micro_batch if needs_kl else None)

    return _KTOTrainer(
        model=training.model,
        ref_model=load_reference(training),
        args=KTOConfig(
            **common_arguments(training),
            max_length=method.max_length,
            beta=method.beta,
            loss_type=_KTO_LOSSES[method.loss],
            desirable_weight=method.desirable_weight,
            undesirable_weight=method.undesirable_weight,
            # The order of the rows determines which answers share a micro batch.
            train_sampling_strategy="sequential" if needs_kl else "random",
        ),
        train_dataset=dataset(training.rows.train),
        eval_dataset=dataset(training.rows.validation) if training.rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


@dataclass(frozen=True, slots=True)
class LabeledAnswer:
    """Prompt and answer as token ids, with the label: True if the answer is desirable."""

    prompt: list[int]
    answer: list[int]
    label: bool


def label_answers(renderer: Renderer, rows: Sequence[Row]) -> list[LabeledAnswer]:
    """Labeled answers of rows; a preference pair becomes two of them."""
    answers = []
    for row in rows:
        if "chosen" in row:
            pair = renderer.pair(row)
            answers.append(LabeledAnswer(pair.prompt, pair.chosen, True))
            answers.append(LabeledAnswer(pair.prompt, pair.rejected, False))
        else:
            tokens = renderer.tokens(row)
            start = tokens.start
            answers.append(LabeledAnswer(tokens.ids[:start], tokens.answered[start:], row["label"]))
    return answers


def build_answer_dataset(answers: Sequence[LabeledAnswer], micro_batch: int | None) -> Dataset:
    """Data set of token ids and labels in the given order.

    Args:
        answers: labeled answers in training order.
        micro_batch: size of the micro batches within which each prompt is paired with the answer of another one; KTO
            estimates the KL divergence from the reference model on these pairs. None for a loss without KL term.
    """
    columns: dict[str, list[Any]] = {
        "prompt_ids": [answer.prompt for answer in answers],
        "completion_ids": [answer.answer for answer in answers],
        "label": [answer.label for answer in answers],
    }
    if micro_batch is not None:
        columns["KL_completion_ids"] = [
            answers[_mismatched_index(index, micro_batch, len(answers))].answer
            for index in range(len(answers))
        ]
    return Dataset.from_dict(columns)


def _mismatched_index(index: int, micro_batch: int, count: int) -> int:
    """Index of another answer of the same micro batch: the previous one, or the last one for the first.

    The answer of an incomplete last batch of one is paired with the previous batch's last.
    """
    begin = index - index % micro_batch
    end = min(begin + micro_batch, count)
    if end - begin == 1:
        return max(index - 1, 0)
    return index - 1 if index > begin else end - 1


def _check_label_smoothing(method: DPOMethod) -> None:
    """Check that the loss uses ``labelSmoothing`` if it is set, and that EXO has one.

    Raises:
        UserError: it does not, or has none.
    """
    smoothed = method.loss in _LOSSES_WITH_SMOOTHING
    if method.label_smoothing and not smoothed:
        message = (
            f"labelSmoothing does nothing with loss {method.loss}: leave it out, "
            f"or choose loss {', '.join(_LOSSES_WITH_SMOOTHING)}"
        )
        raise UserError("LabelSmoothing", message)
    if method.loss is DPOLoss.EXO_PAIR and not method.label_smoothing:
        message = "loss EXOPair needs a labelSmoothing above 0: write 0.001, as its authors do"
        raise UserError("LabelSmoothing", message)
