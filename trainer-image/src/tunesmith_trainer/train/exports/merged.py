"""An adapter and its base model as one model."""

import logging
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from tunesmith_data.failures import UserError

log = logging.getLogger(__name__)


def save_merged(base: Path, adapter: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the merged model in the base's own precision, with its tokenizer and chat template.

    It is merged in the host's memory and into unquantised weights: what a QLoRA adapter was trained on in 4 bits is
    served on full ones either way, and merging into 4 bits would round twice.

    Raises:
        UserError: the merged weights are not finite.
    """
    dtype = AutoConfig.from_pretrained(base, local_files_only=True).dtype or torch.float32
    log.info("merging the adapter into the base model, in %s", dtype)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, local_files_only=True, use_safetensors=True, device_map=None
    )
    model = PeftModel.from_pretrained(model, str(adapter))
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(
            "NotMergeable", f"the adapter can't be merged: {error}; lower learningRate"
        ) from error
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
