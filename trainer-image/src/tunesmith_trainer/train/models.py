"""The model that is trained, and the adapter on it."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from tunesmith_contract.run_config import Adapter

ALL_LINEAR = "all-linear"


def load_model(folder: Path) -> Any:
    """The base model: bfloat16 on a GPU, float32 on a CPU, however it was saved."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )


def build_peft_config(adapter: Adapter | None) -> LoraConfig | None:
    """PEFT's configuration of the adapter; None for full fine-tuning."""
    if adapter is None:
        return None
    names = list(adapter.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token where the tokenizer names no padding; its labels are ignored either way."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
