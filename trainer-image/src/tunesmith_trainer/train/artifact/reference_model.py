"""The base model as it will be served, for the probes of a run that did not keep it.

Full fine-tuning has changed the base, and 4-bit training holds a coarser copy of it; a server proves an artefact
against the base in its own precision. So the base is loaded once more, after training: on the GPU as far as there is
room, else in the host's memory, else read from its files as it is needed.
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

# Of what is free; the rest is for activations and fragments.
_USABLE = 0.85


def measure_probes(
    model: Any,
    config: TrainConfig,
    folder: Path,
    sequences: list[ProbeTokens],
    weights: Mapping[str, Any] | None = None,
) -> tuple[Probe, ...]:
    """Measure base and tuned model as they will be served; all workers have to ask, and the first gets an answer.

    Args:
        model: the trained model; with an adapter on full-precision weights it is both.
        config: the run.
        folder: the base model's.
        sequences: what is measured.
        weights: what was trained, where the model itself holds only parts of it.
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
    """The trained adapter on another copy of its base."""
    state = get_peft_model_state_dict(trained, state_dict=weights)
    model = get_peft_model(base, trained.peft_config["default"])
    set_peft_model_state_dict(model, state)
    return model


@contextlib.contextmanager
def base_model(folder: Path) -> Iterator[Any]:
    """The base model in the precision of a server, wherever there is room for it."""
    # Else what is loaded while ZeRO-3 is configured would be shared out among all workers.
    unset_hf_deepspeed_config()
    with tempfile.TemporaryDirectory() as spare:
        yield AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **_placement(spare)
        )


def _placement(spare: str) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"dtype": torch.float32}
    device = torch.cuda.current_device()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    room = {device: int(free * _USABLE), "cpu": int(psutil.virtual_memory().available * _USABLE)}
    return {"dtype": torch.bfloat16, "device_map": "auto", "max_memory": room, "offload_folder": spare}
