"""Probe measurement on the tuned model and on the base model in serving precision.

A server verifies an artifact against the base model in its own precision, but full fine-tuning overwrites the base
and 4-bit training holds a quantized copy of it. So the base is loaded again after training: on the GPU as far as it
fits, then in host memory, then offloaded to disk.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tunesmith_contract.artifact import Probe
from tunesmith_contract.run_config import AdapterType, TrainConfig
from tunesmith_trainer.train.distributed.parallel import is_first_rank

from .probes import ProbeTokens, log_probs, pair_probes

# Fraction of the free memory for weights; the rest is for activations and fragmentation.
_USABLE_FRACTION = 0.85


def measure_probes(
    model: Any,
    config: TrainConfig,
    folder: Path,
    sequences: list[ProbeTokens],
    weights: Mapping[str, Any] | None = None,
) -> tuple[Probe, ...]:
    """Probes with log-probabilities of base and tuned model in serving precision.

    Collective: all workers must call it. Only the first rank gets probes after full fine-tuning and QLoRA.

    Args:
        model: the trained model; with an adapter switched off it is the base, unless that is quantized.
        config: the run.
        folder: folder of the base model.
        sequences: candidate sequences.
        weights: the trained tensors, where the model itself is partitioned.
    """
    if config.adapter is None:
        tuned = log_probs(model, sequences)
        if not is_first_rank():
            return ()
        with base_model(folder) as base:
            return pair_probes(sequences, log_probs(base, sequences), tuned)
    if config.adapter.type is AdapterType.QLORA:
        if not is_first_rank():
            return ()
        with base_model(folder) as base:
            return _measure_adapter(_with_adapter(base, model, weights), sequences)
    return _measure_adapter(model, sequences)


def _measure_adapter(model: Any, sequences: list[ProbeTokens]) -> tuple[Probe, ...]:
    tuned = log_probs(model, sequences)
    with model.disable_adapter():
        return pair_probes(sequences, log_probs(model, sequences), tuned)


def _with_adapter(base: Any, trained: Any, weights: Mapping[str, Any] | None) -> Any:
    """Copy of the trained adapter on another copy of its base model."""
    state = get_peft_model_state_dict(trained, state_dict=weights)
    model = get_peft_model(base, trained.peft_config["default"])
    set_peft_model_state_dict(model, state)
    return model


@contextlib.contextmanager
def base_model(folder: Path) -> Iterator[Any]:
    """Base model in serving precision, on GPU, host memory and disk as far as each has room."""
    # Otherwise transformers would partition the model over all workers while ZeRO-3 is configured.
    unset_hf_deepspeed_config()
    with tempfile.TemporaryDirectory() as offload_folder:
        yield AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **_placement(offload_folder)
        )


def _placement(offload_folder: str) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"dtype": torch.float32}
    device = torch.cuda.current_device()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    limits = {
        device: int(free * _USABLE_FRACTION),
        "cpu": int(psutil.virtual_memory().available * _USABLE_FRACTION),
    }
    return {
        "dtype": torch.bfloat16,
        "device_map": "auto",
        "max_memory": limits,
        "offload_folder": offload_folder,
    }
