"""Probe measurement on models as a server has them: unquantized, in serving precision, read from their files.

Full fine-tuning overwrites the base model and 4-bit training holds a quantized copy of it. So base and tuned model are
loaded after training, in a process that holds nothing else: on all GPUs of the pod as far as they fit, then in host
memory, then on disk.
"""

import contextlib
import gc
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError
from tunesmith_trainer.cgroup import free_host_memory

from .probe_noise import BATCH_SIZE, measure_adapter
from .probes import Measurement, ProbeTokens, token_log_probs

log = logging.getLogger(__name__)

#: Fractions of the free GPU memory for weights, tried in turn; the rest is for activations and fragmentation.
_GPU_FRACTIONS = (0.85, 0.5, 0.0)
#: Fraction of the free host memory for weights that do not fit on the GPUs.
_HOST_FRACTION = 0.85

_ADAPTER = "default"

_Measured = TypeVar("_Measured")


def measure_stored_adapter(base: Path, adapter: Path, sequences: Sequence[ProbeTokens]) -> Measurement:
    """Measurement of an adapter on its base model, both read from their files.

    Raises:
        StageError: the base model fits into no memory that the adapter can be used with.
    """

    def measure(model: Any) -> Measurement:
        return measure_adapter(load_adapter(model, adapter), sequences)

    return _on_stored_model(base, measure)


def measure_stored_model(base: Path, tuned: Path, sequences: Sequence[ProbeTokens]) -> Measurement:
    """Measurement of a whole model and of the one that it was trained from, read from their files one by one."""

    def measure(model: Any) -> list[list[float]]:
        return token_log_probs(model, sequences, BATCH_SIZE)

    base_log_probs = _on_stored_model(base, measure)
    _free_memory()
    return Measurement(base=base_log_probs, tuned=_on_stored_model(tuned, measure))


def load_adapter(base: Any, folder: Path) -> PeftModel:
    """Adapter on a base model of which some layers may be offloaded to host memory or disk.

    PEFT places an adapter's weights beside those of its layer, which for an offloaded layer means nowhere; and with
    layers on disk it would write new weight files, over those of the base model. So the weights are placed here, on
    the device that computes the layer.

    Raises:
        StageError: the adapter needs the weights themselves (DoRA), and some are offloaded.
    """
    if not is_offloaded(base):
        return PeftModel.from_pretrained(base, folder)
    if getattr(PeftConfig.from_pretrained(str(folder)), "use_dora", False):
        message = (
            "the base model does not fit on the GPUs beside a DoRA adapter: ask for more GPUs or larger ones"
        )
        raise StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
    vars(base).pop("hf_device_map", None)  # PEFT would place all layers again
    model = PeftModel.from_pretrained(base, folder)
    weights = load_peft_weights(str(folder), device="cpu")
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            device = _computing_device(layer.get_base_layer())
            for part in ("lora_A", "lora_B"):
                weight = torch.nn.Parameter(weights[f"{name}.{part}.weight"].to(device), requires_grad=False)
                getattr(layer, part)[_ADAPTER].weight = weight
    return model


def is_offloaded(model: Any) -> bool:
    """True if some weights of a model are on no device, and loaded when they are needed."""
    return any(parameter.is_meta for parameter in model.parameters())


def _computing_device(layer: Any) -> torch.device:
    hook = getattr(layer, "_hf_hook", None)
    return torch.device(layer.weight.device if hook is None else hook.execution_device)


def _on_stored_model(folder: Path, measure: Callable[[Any], _Measured]) -> _Measured:
    """Result of a measurement on a model; with fewer of its weights on the GPUs if their memory runs out."""

    def measure_with(gpu_fraction: float) -> _Measured:
        with serving_model(folder, gpu_fraction) as model:
            return measure(model)

    *larger, smallest = _GPU_FRACTIONS if torch.cuda.is_available() else (0.0,)
    for fraction in larger:
        with contextlib.suppress(torch.OutOfMemoryError):
            return measure_with(fraction)
        log.warning("GPU memory ran out with %d %% of it for weights: trying again with less", 100 * fraction)
        _free_memory()
    return measure_with(smallest)


def _free_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@contextlib.contextmanager
def serving_model(folder: Path, gpu_fraction: float) -> Iterator[Any]:
    """Model in serving precision, on GPUs, host memory and disk as far as each has room.

    Args:
        folder: folder of the model.
        gpu_fraction: fraction of the free GPU memory that its weights may take.
    """
    with tempfile.TemporaryDirectory() as offload_folder:
        yield AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **_placement(offload_folder, gpu_fraction)
        )


def _placement(offload_folder: str, gpu_fraction: float) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"dtype": torch.float32}
    limits: dict[int | str, int] = {
        device: int(torch.cuda.mem_get_info(device)[0] * gpu_fraction)
        for device in range(torch.cuda.device_count())
    }
    limits["cpu"] = int(free_host_memory() * _HOST_FRACTION)
    return {
        "dtype": torch.bfloat16,
        "device_map": "auto",
        "max_memory": limits,
        "offload_folder": offload_folder,
    }
