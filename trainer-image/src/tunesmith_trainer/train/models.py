"""The model that is trained, and the adapter on it."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from tunesmith_contract.run_config import Adapter

ALL_LINEAR = "all-linear"

#: The layer that makes a number of the last token's hidden state; it is trained whole, beside any adapter.
REWARD_HEAD = "score"


def load_model(folder: Path, *, reward: bool = False) -> Any:
    """The base model: bfloat16 on a GPU, float32 on a CPU, however it was saved.

    Args:
        folder: with weights as safetensors.
        reward: end the model in one number per conversation instead of the next token's probabilities.
    """
    loader, options = (
        (AutoModelForSequenceClassification, {"num_labels": 1}) if reward else (AutoModelForCausalLM, {})
    )
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return loader.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True, **options)


def build_peft_config(adapter: Adapter | None, *, reward: bool = False) -> LoraConfig | None:
    """PEFT's configuration of the adapter, and of a reward's head; None for full fine-tuning."""
    if adapter is None:
        return None
    names = list(adapter.target_modules)
    return LoraConfig(
        task_type="SEQ_CLS" if reward else "CAUSAL_LM",
        modules_to_save=[REWARD_HEAD] if reward else None,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token where the tokenizer names no padding; its labels are ignored either way."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
