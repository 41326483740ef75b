"""Merge of an adapter into its base model."""

import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError, UserError
from tunesmith_trainer.cgroup import free_host_memory

log = logging.getLogger(__name__)

_GIB = 2**30


def save_merged(base: Path, adapter: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the merged model in the base model's own precision, with its tokenizer and chat template.

    Weights are merged in host memory and unquantized, for QLoRA too: merging into 4-bit weights would round twice.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        tokenizer: the base model's tokenizer.
        folder: target folder.

    Raises:
        UserError: the merged weights are not finite.
        StageError: the base model does not fit into the free host memory.
    """
    _require_memory(base)
    dtype = AutoConfig.from_pretrained(base, local_files_only=True).dtype or torch.float32
    log.info("merging the adapter into the base model, in %s", dtype)
    base_model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, local_files_only=True, use_safetensors=True, device_map=None
    )
    model: Any = PeftModel.from_pretrained(base_model, str(adapter))
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(
            "NotMergeable", f"the adapter can't be merged: {error}; lower learningRate"
        ) from error
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _require_memory(base: Path) -> None:
    """Check that the base model fits into host memory: the kernel's out-of-memory killer would not say what is missing.

    Raises:
        StageError: it does not.
    """
    needed, free = sum(file.stat().st_size for file in base.glob("*.safetensors")), free_host_memory()
    if needed > free:
        message = (
            f"merging takes {needed / _GIB:.1f} GiB of host memory and {free / _GIB:.1f} GiB are free: raise "
            "resources.limits.memory, or leave Merged and GGUF out of output.formats"
        )
        raise StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
