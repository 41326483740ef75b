"""Learning which answers are preferred: DPO from pairs, KTO from answers that were judged one by one.

The reference is the model as it was before this run: without the adapter where a new one is trained, a frozen copy of
the adapter that training starts from, and a second copy of the weights where all of them are trained.
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
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import Training
from tunesmith_trainer.train.distributed.parallel import micro_batch_size

from .validation import WeightedValidation

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
_SMOOTHED = (DPOLoss.ROBUST, DPOLoss.EXO_PAIR, DPOLoss.AOT)


class _Tokenised:
    """Takes rows as they are: TRL would render and tokenise them itself, and differ from what prepare counted."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class _DPOTrainer(_Tokenised, WeightedValidation, DPOTrainer):
    def weigh(self, inputs: dict[str, Any]) -> int:
        """Pairs."""
        return len(inputs["input_ids"]) // 2


class _KTOTrainer(_Tokenised, WeightedValidation, KTOTrainer):
    def weigh(self, inputs: dict[str, Any]) -> int:
        """Judged answers."""
        return len(inputs["input_ids"])


def build_dpo_trainer(training: Training) -> DPOTrainer:
    """TRL's DPOTrainer on rows that are tokenised here as prepare counted them.

    Raises:
        UserError: the loss and ``labelSmoothing`` don't go together.
    """
    method = training.config.method.dpo
    assert method is not None
    _require_smoothing(method)
    rows, renderer = training.rows, training.renderer
    return _DPOTrainer(
        model=training.model,
        ref_model=load_reference(training),
        args=DPOConfig(
            **common_arguments(training),
            max_length=method.max_length,
            beta=method.beta,
            loss_type=_DPO_LOSSES[method.loss],
            label_smoothing=method.label_smoothing,
        ),
        train_dataset=build_pairs(renderer, rows.train),
        eval_dataset=build_pairs(renderer, rows.validation) if rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


def load_reference(training: Training) -> Any:
    """A second copy of the weights where all of them are trained; None where an adapter is, which tells both apart.

    TRL's own copy would be held as the trained weights are: in float32.
    """
    model = training.model
    if training.peft_config is not None or isinstance(model, PeftModel):
        return None
    return AutoModelForCausalLM.from_pretrained(
        model.config.name_or_path,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        attn_implementation=training.kernels.attention,
        local_files_only=True,
        use_safetensors=True,
    )


def build_pairs(renderer: Renderer, rows: Sequence[Row]) -> Dataset:
    """Prompts with two answers each, as token ids; TRL's collator cuts them at ``max_length``."""
    pairs = [renderer.pair(row) for row in rows]
    return Dataset.from_dict(
        {
            "prompt_ids": [pair.prompt for pair in pairs],
            "chosen_ids": [pair.chosen for pair in pairs],
            "rejected_ids": [pair.rejected for pair in pairs],
        }
    )


def build_kto_trainer(training: Training) -> KTOTrainer:
    """TRL's KTOTrainer on rows that are tokenised here as prepare counted them.

    Raises:
        UserError: the micro batch holds a single answer, and the loss compares several.
    """
    method = training.config.method.kto
    assert method is not None
    numbers, compared = training.config.hyperparameters, method.loss is KTOLoss.KTO
    micro_batch = micro_batch_size(numbers)
    if compared and micro_batch < 2:
        message = (
            "loss KTO compares the answers of a micro batch: write a microBatchSize of at least 2, "
            "or choose loss APOZeroUnpaired"
        )
        raise UserError("BatchSize", message)

    def dataset(rows: Sequence[Row]) -> Dataset:
        judged = judge_rows(training.renderer, rows)
        random.Random(numbers.seed).shuffle(judged)
        return build_judged(judged, micro_batch if compared else None)

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
            # Which answers are compared is fixed with the order of the rows.
            train_sampling_strategy="sequential" if compared else "random",
        ),
        train_dataset=dataset(training.rows.train),
        eval_dataset=dataset(training.rows.validation) if training.rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt and an answer as token ids, and whether the answer is a good one."""

    prompt: list[int]
    answer: list[int]
    label: bool


def judge_rows(renderer: Renderer, rows: Sequence[Row]) -> list[Judged]:
    """Judged answers; a preference is two of them."""
    judged = []
    for row in rows:
        if "chosen" in row:
            pair = renderer.pair(row)
            judged.append(Judged(pair.prompt, pair.chosen, True))
            judged.append(Judged(pair.prompt, pair.rejected, False))
        else:
            tokens = renderer.tokens(row)
            start = tokens.start
            judged.append(Judged(tokens.ids[:start], tokens.answered[start:], row["label"]))
    return judged


def build_judged(judged: Sequence[Judged], batch: int | None) -> Dataset:
    """Judged answers in this order.

    Args:
        judged: in the order in which they are seen.
        batch: beside each answer, put another one of its micro batch of this size: the divergence from the reference
            is estimated on prompts with answers that are not their own. None for a loss that needs none.
    """
    columns: dict[str, list[Any]] = {
        "prompt_ids": [each.prompt for each in judged],
        "completion_ids": [each.answer for each in judged],
        "label": [each.label for each in judged],
    }
    if batch is not None:
        columns["KL_completion_ids"] = [
            judged[_partner(i, batch, len(judged))].answer for i in range(len(judged))
        ]
    return Dataset.from_dict(columns)


def _partner(index: int, batch: int, count: int) -> int:
    """The one before in the same micro batch, the last for the first; the one before it for a batch of one."""
    begin = index - index % batch
    end = min(begin + batch, count)
    if end - begin == 1:
        return max(index - 1, 0)
    return index - 1 if index > begin else end - 1


def _require_smoothing(method: DPOMethod) -> None:
    smoothed = method.loss in _SMOOTHED
    if method.label_smoothing and not smoothed:
        message = (
            f"labelSmoothing does nothing with loss {method.loss}: leave it out, "
            f"or choose loss {', '.join(_SMOOTHED)}"
        )
        raise UserError("LabelSmoothing", message)
    if method.loss is DPOLoss.EXO_PAIR and not method.label_smoothing:
        message = "loss EXOPair needs a labelSmoothing above 0: write 0.001, as its authors do"
        raise UserError("LabelSmoothing", message)
