"""Settings of a trial of a search, from those of its job."""

from collections.abc import Mapping
from typing import Any

from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.search import (
    OF_ADAPTER,
    WHOLE_NUMBERS,
    ParameterName,
    ParameterValue,
    SuccessiveHalving,
)

from .defaults import rows_at_once


def changed_settings(
    parameters: Mapping[ParameterName, ParameterValue], rank: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Members of ``hyperparameters`` and of ``adapter`` that a trial changes, by their names in YAML.

    Whole numbers are numbers, all others text. ``alphaRatio`` becomes alpha, of at least 1.

    Args:
        rank: rank of the job's adapter; None where there is none.
    """
    values: dict[ParameterName, Any] = {
        name: int(value) if name in WHOLE_NUMBERS else value for name, value in parameters.items()
    }
    ratio = values.pop(ParameterName.ALPHA_RATIO, None)
    if ratio is not None:
        base = values.get(ParameterName.RANK, rank)
        assert base is not None
        values[ParameterName.ALPHA] = max(1, round(float(ratio) * base))
    adapter = {name.value: value for name, value in values.items() if name in OF_ADAPTER}
    return {name.value: value for name, value in values.items() if name not in OF_ADAPTER}, adapter


def measuring_interval(written: int, steps: int, pruner: SuccessiveHalving | None) -> int:
    """Optimizer steps between two checkpoints of a trial, each of which is measured.

    As written, or so often that each point of comparison is measured.

    Args:
        written: ``checkpoints.everySteps``.
        steps: all steps of the trial.
    """
    if pruner is None:
        return written
    return min(written, max(1, steps * pruner.start_percent // 100))


def configure_trial(
    config: TrainConfig,
    parameters: Mapping[ParameterName, ParameterValue],
    steps_per_epoch: int | None = None,
) -> TrainConfig:
    """Configuration of one trial of a search in one pod: that of the job with the trial's parameters, without search.

    The micro batch is the largest that is no larger than the job's and divides the share of a device.

    Args:
        config: configuration with ``search``.
        steps_per_epoch: optimizer steps of an epoch with the trial's batch size; None leaves the interval of
            checkpoints as it is.

    Raises:
        ValueError: the devices can't share the batch evenly, or a value is outside what training accepts.
    """
    assert config.search is not None
    changes, of_adapter = changed_settings(parameters, config.adapter.rank if config.adapter else None)
    numbers = config.hyperparameters.to_dict() | changes
    devices = config.nodes * max(1, config.gpus_per_node)
    numbers["microBatchSize"] = _micro_batch_size(config, numbers["batchSize"], devices)
    document = config.to_dict() | {"hyperparameters": numbers}
    document.pop("search")
    if config.adapter is not None:
        document["adapter"] = config.adapter.to_dict() | of_adapter
    if steps_per_epoch is not None:
        steps = numbers.get("maxSteps") or steps_per_epoch * numbers["epochs"]
        every = measuring_interval(config.checkpoints.every_steps, steps, config.search.pruner)
        document["checkpoints"] = config.checkpoints.to_dict() | {"everySteps": every}
    return TrainConfig.model_validate(document)


def _micro_batch_size(config: TrainConfig, batch_size: int, devices: int) -> int:
    if batch_size % devices:
        raise ValueError(f"batchSize: {batch_size} can't be shared evenly by {devices} GPUs")
    per_device = batch_size // devices
    largest = min(per_device, config.hyperparameters.micro_batch_size)
    micro = max(size for size in range(1, largest + 1) if per_device % size == 0)
    least = rows_at_once(config.method)
    if micro < least:
        raise ValueError(f"batchSize: {batch_size} leaves each GPU fewer than {least} rows at once")
    return micro
