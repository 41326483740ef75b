"""Distributed set-up and collectives: DDP, or DeepSpeed's ZeRO stages (arXiv:1910.02054)."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations import deepspeed as transformers_deepspeed

from tunesmith_contract.layout import MICRO_BATCH_ENV
from tunesmith_contract.run_config import AdapterType, Hyperparameters, Offload, Parallelism, TrainConfig
from tunesmith_contract.shared_rules.defaults import accumulates_in_float32
from tunesmith_data.failures import UserError
from tunesmith_trainer.gpu.device import uses_gpu
from tunesmith_trainer.preemption import Preemption

from .control_group import end_groups
from .rendezvous import join_gang, read_rendezvous, start_single_process_group

_ZERO_STAGES = {Parallelism.ZERO2: 2, Parallelism.ZERO3: 3}

# Elements that are reduced or gathered at once: 100 MB in bfloat16. Larger buckets only cost memory.
_BUCKET_ELEMENTS = 50_000_000
# Smaller parameters are kept on every device: norms and adapters' small matrices.
_PERSISTENT_ELEMENTS = 100_000


@contextlib.contextmanager
def gang(config: TrainConfig, preemption: Preemption) -> Iterator[None]:
    """Process group of all workers, with DeepSpeed configured before any weights are loaded.

    Models that are loaded within the context are partitioned under ZeRO-3.

    Raises:
        UserError: parallelism, offload and adapter can't be combined.
        CommunicationError: not all workers joined in time.
    """
    check_combination(config)
    on_gpu = uses_gpu(config)
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    rendezvous = read_rendezvous(os.environ)
    if rendezvous.world_size > 1:
        join_gang(rendezvous, preemption, on_gpu=on_gpu)
    elif config.parallelism is not Parallelism.DDP:
        start_single_process_group(on_gpu=on_gpu)
    settings = deepspeed_settings(config)
    if settings:
        from deepspeed import init_distributed, ops

        # An inference operator that would be compiled whenever a pod without a GPU starts.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        init_distributed(auto_mpi_discovery=False)
    # transformers holds a weak reference to it while models are loaded.
    config_reference = HfDeepSpeedConfig(settings) if settings else None
    yield
    del config_reference
    # Only after success: destroying a group may wait for a lost member.
    end_groups()


def deepspeed_settings(config: TrainConfig) -> dict[str, Any] | None:
    """DeepSpeed configuration for this worker's environment; None for DDP.

    Raises:
        UserError: the batch can't be divided among the devices.
    """
    numbers, world = config.hyperparameters, world_size()
    micro_batch = micro_batch_size(numbers)
    accumulation = accumulation_steps(numbers.batch_size, micro_batch, world)
    return build_deepspeed_config(config, micro_batch, accumulation, world, on_gpu=uses_gpu(config))


def micro_batch_size(numbers: Hyperparameters, environment: Mapping[str, str] = os.environ) -> int:
    """Rows per device and pass; the operator lowers it after an attempt that ran out of memory."""
    return int(environment.get(MICRO_BATCH_ENV, numbers.micro_batch_size))


def accumulation_steps(batch: int, micro_batch: int, world: int) -> int:
    """Gradient accumulation steps: batch / (micro batch x devices).

    Raises:
        UserError: the quotient is not a whole number.
    """
    rows_per_pass = micro_batch * world
    steps, remainder = divmod(batch, rows_per_pass)
    if remainder or not steps:
        devices = "1 device" if world == 1 else f"{world} devices"
        message = (
            f"batchSize {batch} is no multiple of {rows_per_pass} "
            f"(micro batch {micro_batch} on {devices}): write a multiple of it"
        )
        raise UserError("BatchSize", message)
    return steps


def world_size() -> int:
    """Number of workers of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def ranks_per_node() -> int:
    """Number of workers of each pod."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_of_node() -> bool:
    """True on the first worker of each pod."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def is_first_rank() -> bool:
    """True on the worker that writes artifacts and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def check_combination(config: TrainConfig) -> None:
    """Check that DeepSpeed supports the run's parallelism, offload and adapter together.

    Raises:
        UserError: it does not; the message names the value to write.
    """
    if config.offload is not Offload.NONE and config.parallelism is Parallelism.DDP:
        raise UserError("Offload", "offload needs parallelism ZeRO2 or ZeRO3: write one of them")
    if config.offload is Offload.ALL and config.parallelism is not Parallelism.ZERO3:
        raise UserError("Offload", "offload All needs parallelism ZeRO3: write it, or offload Optimizer")
    quantized = config.adapter is not None and config.adapter.type is AdapterType.QLORA
    if quantized and config.parallelism is Parallelism.ZERO3:
        message = (
            "4-bit weights can't be partitioned and saved again: with QLoRA write parallelism ZeRO2 or DDP"
        )
        raise UserError("Parallelism", message)


def build_deepspeed_config(
    config: TrainConfig, micro_batch: int, accumulation: int, world: int, *, on_gpu: bool
) -> dict[str, Any] | None:
    """DeepSpeed configuration; None for DDP.

    The optimizer is always torch's AdamW. DeepSpeed's would be compiled at the start of a pod, with a compiler that
    an image need not have; torch's fused AdamW runs on CPU tensors too, where offload keeps them.

    Args:
        config: the run.
        micro_batch: rows per device and pass.
        accumulation: passes per optimizer step.
        world: number of devices of the run.
        on_gpu: use bfloat16 and pinned memory, else float32.
    """
    if config.parallelism is Parallelism.DDP:
        return None
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch * accumulation * world,
        "gradient_clipping": config.hyperparameters.max_grad_norm,
        "bf16": {"enabled": on_gpu},
        "data_types": {"grad_accum_dtype": _gradient_sum(config, micro_batch * accumulation, on_gpu)},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _build_zero(config, on_gpu),
        "steps_per_print": 2**31,
    }


def _gradient_sum(config: TrainConfig, rows: int, on_gpu: bool) -> str:
    """Type in which the gradients of a device's ``rows`` of a step are added up."""
    # A sum in float32 would stay on the GPU, which offload is to relieve; that in bfloat16 is in host memory.
    on_host = config.parallelism is Parallelism.ZERO2 and config.offload is not Offload.NONE
    return "bf16" if on_gpu and (on_host or not accumulates_in_float32(rows)) else "fp32"


def _build_zero(config: TrainConfig, on_gpu: bool) -> dict[str, Any]:
    stage = _ZERO_STAGES[config.parallelism]
    host = {"device": "cpu", "pin_memory": on_gpu}
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
    }
    if stage == 2:
        zero |= {"allgather_bucket_size": _BUCKET_ELEMENTS}
    else:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": _PERSISTENT_ELEMENTS,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if config.offload is not Offload.NONE:
        zero["offload_optimizer"] = host
    if config.offload is Offload.ALL:
        zero["offload_param"] = host
    return zero


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """Loading of models that no engine trains or wraps, each whole on every worker.

    While ZeRO-3 is configured, transformers would partition them over all workers, which leaves empty weights.
    """
    configured = transformers_deepspeed._hf_deepspeed_config_weak_ref
    transformers_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        transformers_deepspeed._hf_deepspeed_config_weak_ref = configured


def any_worker(condition: bool) -> bool:
    """True on all ranks if the condition holds on any of them; all must call it."""
    if not dist.is_initialized():
        return condition
    flag = torch.tensor([float(condition)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def consolidated_weights(trainer: Any) -> dict[str, torch.Tensor] | None:
    """Weights gathered from all workers under ZeRO-3, for the first rank to save; all must call it.

    For a model with an adapter only the trained tensors. None if each worker has the full model anyway.
    """
    plugin = trainer.args.deepspeed_plugin
    if plugin is None or plugin.zero_stage != _ZERO_STAGES[Parallelism.ZERO3]:
        return None
    # Private, but it alone can leave out frozen weights; transformers uses it for checkpoints too.
    weights: dict[str, torch.Tensor] | None = trainer.model_wrapped._zero3_consolidated_16bit_state_dict(
        exclude_frozen_parameters=isinstance(trainer.model, PeftModel)
    )
    return weights
