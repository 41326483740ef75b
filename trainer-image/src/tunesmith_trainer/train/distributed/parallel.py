"""How several devices share the work: whole copies (DDP), or DeepSpeed's ZeRO stages (arXiv:1910.02054)."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from transformers.integrations import HfDeepSpeedConfig

from tunesmith_contract.layout import MICRO_BATCH_ENV
from tunesmith_contract.run_config import AdapterType, Hyperparameters, Offload, Parallelism, TrainConfig
from tunesmith_data.failures import UserError
from tunesmith_trainer.preemption import Preemption

from .rendezvous import join, read_place, stand_alone

_STAGES = {Parallelism.ZERO2: 2, Parallelism.ZERO3: 3}

# Elements that are reduced or fetched at once: 100 MB in bfloat16. Larger ones only cost memory.
_BUCKET = 50_000_000
# Parameters below this are kept whole on each device: norms and adapters' small matrices.
_PERSISTENT = 100_000


@contextlib.contextmanager
def gang(config: TrainConfig, preemption: Preemption) -> Iterator[None]:
    """Meet the other workers, and say how the weights will be shared before any is loaded.

    Within it a model that is loaded for ZeRO-3 is never whole on any worker.

    Raises:
        UserError: the combination can't be trained.
        CommunicationError: not all workers came.
    """
    refuse_combination(config)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    place = read_place(os.environ)
    if place.world > 1:
        join(place, preemption)
    elif config.parallelism is not Parallelism.DDP:
        stand_alone()
    settings = deepspeed_settings(config)
    if settings:
        _start_deepspeed()
    # transformers knows it by a weak reference while models are loaded.
    sharing = HfDeepSpeedConfig(settings) if settings else None
    yield
    del sharing
    # Only after success: a group whose member is gone may wait for it.
    if dist.is_initialized():
        dist.destroy_process_group()


def _start_deepspeed() -> None:
    """DeepSpeed on the process group that is there already."""
    import deepspeed

    # An operator for inference that would be compiled whenever a pod without a GPU starts.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False)


def deepspeed_settings(config: TrainConfig) -> dict[str, Any] | None:
    """DeepSpeed's configuration for this worker; None for DDP."""
    numbers, world = config.hyperparameters, world_size()
    micro_batch = micro_batch_size(numbers)
    accumulation = accumulation_steps(numbers.batch_size, micro_batch, world)
    return build_deepspeed_config(config, micro_batch, accumulation, world, on_gpu=torch.cuda.is_available())


def micro_batch_size(numbers: Hyperparameters, environment: Mapping[str, str] = os.environ) -> int:
    """Rows of one device in one pass: less than asked for in an attempt after one that ran out of memory."""
    return int(environment.get(MICRO_BATCH_ENV, numbers.micro_batch_size))


def accumulation_steps(batch: int, micro_batch: int, world: int) -> int:
    """How many micro batches of all devices make one effective batch.

    Raises:
        UserError: they make no whole number.
    """
    together = micro_batch * world
    steps, rest = divmod(batch, together)
    if rest or not steps:
        devices = "1 device" if world == 1 else f"{world} devices"
        message = (
            f"batchSize {batch} is no multiple of {together} "
            f"(micro batch {micro_batch} on {devices}): write a multiple of it"
        )
        raise UserError("BatchSize", message)
    return steps


def world_size() -> int:
    """Workers of the whole run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    """Whether this worker writes what is written once."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse_combination(config: TrainConfig) -> None:
    """Refuse what DeepSpeed can't do.

    Raises:
        UserError: it says what to write instead.
    """
    if config.offload is not Offload.NONE and config.parallelism is Parallelism.DDP:
        raise UserError("Offload", "offload needs parallelism ZeRO2 or ZeRO3: write one of them")
    if config.offload is Offload.ALL and config.parallelism is not Parallelism.ZERO3:
        raise UserError("Offload", "offload All needs parallelism ZeRO3: write it, or offload Optimizer")
    quantized = config.adapter is not None and config.adapter.type is AdapterType.QLORA
    if quantized and config.parallelism is Parallelism.ZERO3:
        message = (
            "4-bit weights can't be cut into parts and saved again: with QLoRA write parallelism ZeRO2 or DDP"
        )
        raise UserError("Parallelism", message)


def build_deepspeed_config(
    config: TrainConfig, micro_batch: int, accumulation: int, world: int, *, on_gpu: bool
) -> dict[str, Any] | None:
    """DeepSpeed's configuration; None for DDP.

    The optimizer is torch's own AdamW everywhere. DeepSpeed's would be compiled when a pod starts, on its GPU with a
    compiler that an image need not have; torch's fused AdamW runs on CPU tensors too, where offload keeps them.

    Args:
        config: the run.
        micro_batch: rows of one device in one pass.
        accumulation: passes before the weights change.
        world: devices of the run.
        on_gpu: bfloat16 and pinned memory on a GPU, float32 on a CPU.
    """
    if config.parallelism is Parallelism.DDP:
        return None
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch * accumulation * world,
        "gradient_clipping": config.hyperparameters.max_grad_norm,
        "bf16": {"enabled": on_gpu},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _build_zero(config, on_gpu),
        "steps_per_print": 2**31,
    }


def _build_zero(config: TrainConfig, on_gpu: bool) -> dict[str, Any]:
    stage = _STAGES[config.parallelism]
    host = {"device": "cpu", "pin_memory": on_gpu}
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": _BUCKET,
    }
    if stage == 2:
        zero |= {"allgather_bucket_size": _BUCKET}
    else:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": _PERSISTENT,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if config.offload is not Offload.NONE:
        zero["offload_optimizer"] = host
    if config.offload is Offload.ALL:
        zero["offload_param"] = host
    return zero


def share_decision(value: Any) -> Any:
    """What the first worker decided, for all."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def any_worker(condition: bool) -> bool:
    """Whether a condition holds for any worker; all of them have to ask."""
    if not dist.is_initialized():
        return condition
    flag = torch.tensor([float(condition)], device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def consolidated_weights(trainer: Any) -> dict[str, torch.Tensor] | None:
    """The whole weights where ZeRO-3 has them in parts, for the first worker to save; all workers have to ask.

    Of a model with an adapter only what was trained. None where each worker has the whole model anyway.
    """
    plugin = trainer.args.deepspeed_plugin
    if plugin is None or plugin.zero_stage != _STAGES[Parallelism.ZERO3]:
        return None
    # The only gathering that can leave out frozen weights; transformers' own checkpoints use it too.
    weights: dict[str, torch.Tensor] | None = trainer.model_wrapped._zero3_consolidated_16bit_state_dict(
        exclude_frozen_parameters=isinstance(trainer.model, PeftModel)
    )
    return weights


def barrier() -> None:
    """Wait for all workers."""
    if dist.is_initialized():
        dist.barrier()
