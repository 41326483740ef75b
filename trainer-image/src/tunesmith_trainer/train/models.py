"""Loading of the model to train, and its quantization and adapter configurations."""

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
from tunesmith_trainer.gpu.device import uses_gpu

from .kernels import Kernels
from .packed_attention import register_packed_attention

ALL_LINEAR = "all-linear"

#: Output layer of a reward model, on the last token's hidden state; it is trained in full beside any adapter.
REWARD_HEAD = "score"


def load_model(folder: Path, config: TrainConfig, kernels: Kernels) -> Any:
    """Load the model to train: a sequence classifier with one label for a reward model, else a causal model.

    Args:
        folder: folder of its weights.
        config: the run.
        kernels: attention implementation.

    Raises:
        UserError: the weights are quantized already, and would be trained or quantized again.
    """
    quantized = config.adapter is not None and config.adapter.type is AdapterType.QLORA
    _require_unquantized(folder, train_weights=config.adapter is None, quantize=quantized)
    dtype = weights_dtype(config, on_gpu=uses_gpu(config))
    reward = config.method.reward is not None
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    options: dict[str, Any] = {"num_labels": 1} if reward else {}
    if quantized:
        assert config.adapter is not None
        options["quantization_config"] = build_quantization(config.adapter, dtype)
    if uses_gpu(config) and config.parallelism is not Parallelism.ZERO3:
        # Straight to the GPU: otherwise each worker of a node first holds a copy of the model in host memory.
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    register_packed_attention()
    model = loader.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=kernels.attention,
        local_files_only=True,
        use_safetensors=True,
        **options,
    )
    _keep_packing(model)
    return model


def _keep_packing(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew when they are first evaluated.

    It does so on CPUs with AVX-512 BF16, and rounds the scales of the weights: training would go on with other ones.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def add_stored_adapter(model: Any, adapter: Path, config: TrainConfig) -> PeftModel:
    """The model with an earlier adapter on it, to continue from.

    Args:
        model: the model.
        adapter: the adapter's folder.
        config: the run.
    """
    assert config.adapter is not None
    # ZeRO-3 gathers parameters of one type only; TRL does the same for adapters that it creates.
    same_type = config.parallelism is Parallelism.ZERO3 and config.adapter.type is not AdapterType.QLORA
    return PeftModel.from_pretrained(model, adapter, is_trainable=True, autocast_adapter_dtype=not same_type)


def _require_unquantized(folder: Path, *, train_weights: bool, quantize: bool) -> None:
    if not (train_weights or quantize) or "quantization_config" not in json.loads(
        (folder / "config.json").read_text()
    ):
        return
    advice = "write an adapter" if train_weights else "write adapter.type LoRA"
    message = f"the base model's weights are quantized already: {advice}, or name the model in full precision"
    raise UserError("QuantizedModel", message)


def weights_dtype(config: TrainConfig, *, on_gpu: bool) -> torch.dtype:
    """Type of the weights in memory while training, whatever type they were saved in.

    bfloat16 on a GPU, except for full fine-tuning without DeepSpeed: bfloat16 would round away updates of a usual
    learning rate, so weights are kept in float32 (matrices are multiplied in bfloat16 by autocast). DeepSpeed keeps
    its own float32 copy.
    """
    if not on_gpu:
        return torch.float32
    needs_master_weights = config.adapter is None and config.parallelism is Parallelism.DDP
    return torch.float32 if needs_master_weights else torch.bfloat16


def build_quantization(adapter: Adapter, dtype: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat quantization (QLoRA, arXiv:2305.14314), stored in the model's type."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=adapter.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )


def build_peft_config(config: TrainConfig) -> LoraConfig | None:
    """PEFT configuration of the adapter and of a reward model's output layer; None for full fine-tuning."""
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
