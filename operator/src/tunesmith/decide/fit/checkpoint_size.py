"""Sizes of what a run trains and of a checkpoint of it."""

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import AdapterType, Parallelism, TrainConfig

from .memory import adapter_parameters

#: Bytes of a trained parameter: two moments and the weight, in float32 or in 16 bits; with DeepSpeed the float32 copy
#: and its moments, the 16-bit weights, and once more the weights of all GPUs together.
STATE, HALF_STATE, DIVIDED_STATE = 12, 6, 16


def checkpoint_bytes(model: ModelReport, run: TrainConfig) -> int:
    """Bytes of a checkpoint, which all pods write together; 0 if unknown."""
    trained, adapter = trained_parameters(model, run), run.adapter
    if run.parallelism is not Parallelism.DDP:
        return DIVIDED_STATE * trained
    quantized = adapter is not None and adapter.type is AdapterType.QLORA
    return (HALF_STATE if quantized else STATE) * trained


def trained_parameters(model: ModelReport, run: TrainConfig) -> int:
    """Number of trained parameters; 0 if unknown."""
    if run.adapter is None:
        return model.parameters
    return adapter_parameters(model.shape, run.adapter) if model.shape else 0
