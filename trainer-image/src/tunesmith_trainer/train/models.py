"""The model that is trained, and the adapter on it."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)

from tunesmith_contract.run_config import Adapter, AdapterType, Parallelism, TrainConfig
from tunesmith_data.failures import UserError

from .kernels import Kernels

ALL_LINEAR = "all-linear"

#: The layer that makes a number of the last token's hidden state; it is trained whole, beside any adapter.
REWARD_HEAD = "score"


def load_model(folder: Path, config: TrainConfig, kernels: Kernels, adapter: Path | None = None) -> Any:
    """The model to train: a sequence classifier with one number for a reward model, else a causal one.

    Args:
        folder: its weights.
        config: the run.
        kernels: how it is to be run.
        adapter: an earlier adapter to go on with; the model that is returned bears it.

    Raises:
        UserError: the weights are quantised already and were to be trained, or to be quantised again.
    """
    quantized = config.adapter is not None and config.adapter.type is AdapterType.QLORA
    _refuse_quantized(folder, trained=config.adapter is None, again=quantized)
    dtype = weights_dtype(config, on_gpu=torch.cuda.is_available())
    reward = config.method.reward is not None
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    more: dict[str, Any] = {"num_labels": 1} if reward else {}
    if quantized:
        assert config.adapter is not None
        more["quantization_config"] = build_quantization(config.adapter, dtype)
        if torch.cuda.is_available() and config.parallelism is not Parallelism.ZERO3:
            more["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    model = loader.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=kernels.attention,
        local_files_only=True,
        use_safetensors=True,
        **more,
    )
    if adapter is None:
        return model
    # ZeRO-3 fetches parameters of one type only; TRL does the same where it makes the adapter itself.
    same_type = config.parallelism is Parallelism.ZERO3 and not quantized
    return PeftModel.from_pretrained(model, adapter, is_trainable=True, autocast_adapter_dtype=not same_type)


def _refuse_quantized(folder: Path, *, trained: bool, again: bool) -> None:
    if not (trained or again) or "quantization_config" not in json.loads(
        (folder / "config.json").read_text()
    ):
        return
    advice = "write an adapter" if trained else "write adapter.type LoRA"
    message = f"the base model's weights are quantised already: {advice}, or name the model in full precision"
    raise UserError("QuantizedModel", message)


def weights_dtype(config: TrainConfig, *, on_gpu: bool) -> torch.dtype:
    """How weights are held while training, however they were saved.

    bfloat16 on a GPU, except where it is the weights themselves that are trained without DeepSpeed: an update of a
    usual learning rate is smaller than bfloat16 can add to a weight, so these are kept in float32 (matrices are
    multiplied in bfloat16 all the same). DeepSpeed keeps such a copy itself.
    """
    if not on_gpu:
        return torch.float32
    trained = config.adapter is None and config.parallelism is Parallelism.DDP
    return torch.float32 if trained else torch.bfloat16


def build_quantization(adapter: Adapter, dtype: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat, stored in the model's type so that ZeRO-3 can share it out (arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=adapter.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )


def build_peft_config(config: TrainConfig) -> LoraConfig | None:
    """PEFT's configuration of the adapter, and of a reward's head; None for full fine-tuning."""
    adapter = config.adapter
    if adapter is None:
        return None
    names = list(adapter.target_modules)
    return LoraConfig(
        task_type="SEQ_CLS" if config.method.reward else "CAUSAL_LM",
        modules_to_save=[REWARD_HEAD] if config.method.reward else None,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.type is AdapterType.RSLORA,
        use_dora=adapter.type is AdapterType.DORA,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )
