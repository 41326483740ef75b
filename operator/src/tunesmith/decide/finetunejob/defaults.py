"""Values for every ``Auto`` in a spec, from the report of prepare, and the reasons for them."""

from dataclasses import dataclass
from math import lcm

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.recipe import Hyperparameters
from tunesmith.api.values import AUTO
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, Failure, RunReport
from tunesmith_contract.run_config import Adapter, AdapterType, Offload, Parallelism
from tunesmith_contract.shared_rules.defaults import (
    KTO_NEEDS_ROWS,
    answers_to_a_prompt,
    choose_activation_checkpointing,
    choose_batch_size,
    choose_packing,
    count_sequences,
    count_steps,
    is_packed,
    rows_at_once,
)
from tunesmith_contract.shared_rules.learning_rate import TrainingSize, choose_learning_rate

MICRO_TOKENS_PER_GPU = 8192
MICRO_TOKENS_PER_CPU = 2048

#: Rows of these methods hold two answers, which go through the model together.
PAIRED = frozenset({"dpo", "reward"})

#: Share of a GPU's memory that weights, gradients and optimizer may take; activations need the rest.
STATE_SHARE = 0.6
UNKNOWN_GPU_MEMORY = 24 * 2**30

#: Bytes of a parameter: frozen in bfloat16, frozen in 4-bit NormalFloat, and trained with DDP.
HALF_BYTES, DDP_BYTES = 2, 20


def resolve_learning_rate(
    written: Hyperparameters,
    method: Method,
    adapter: Adapter | None,
    batch_size: int,
    prepared: RunReport,
) -> float:
    """The peak learning rate; Auto: see ``choose_learning_rate``.

    Args:
        written: hyperparameters of the spec.
        method: the method, with packing resolved.
        adapter: None: all weights are trained.
        batch_size: rows of a step over all devices, packed sequences, or answers.
        prepared: the success of prepare.
    """
    dataset, model = prepared.dataset, prepared.model
    assert dataset is not None
    assert model is not None
    if written.learning_rate != AUTO:
        return float(written.learning_rate)
    sequences = count_sequences(method, dataset.train_rows, dataset.tokens.total)
    group = answers_to_a_prompt(method)
    steps = count_steps(sequences, batch_size, group, written.epochs)
    size = TrainingSize(
        width=model.shape.hidden_size if model.shape else None,
        rows_per_step=batch_size / group * dataset.train_rows / max(1, sequences),
        steps=min(steps, written.max_steps or steps),
    )
    return choose_learning_rate(method.key, adapter, size)


def resolve_packing(written: bool | None, batch_size: str | int, gpus_per_node: int) -> bool:
    """True where short rows share a sequence; Auto: see ``choose_packing``."""
    return choose_packing(batch_size == AUTO, gpus_per_node) if written is None else written


def resolve_batch_size(
    written: str | int, train_rows: int, devices: int, group: int = 1, least: int = 1
) -> int:
    """Rows per optimizer step, over all devices; Auto: see ``choose_batch_size``.

    Args:
        train_rows: rows, or packed sequences.
        group: answers to one prompt.
        least: rows that a device needs at once.
    """
    return choose_batch_size(train_rows, devices, group, least) if written == AUTO else int(written)


def resolve_micro_batch_size(
    written: str | int, per_device: int, row_tokens: int, packing: bool, on_gpu: bool, least: int = 1
) -> int:
    """Rows that go through the model at once on one device; accumulation makes up the rest.

    Auto: the largest divisor of the device's share whose longest rows stay within 8,192 tokens (2,048 on a CPU).
    Packed rows go one at a time: SDPA masks them by a dense matrix over all tokens of the batch.

    Args:
        per_device: rows of a step on one device.
        row_tokens: tokens of the longest row, both answers of a pair.
        least: rows that have to go together.
    """
    if written != AUTO:
        return int(written)
    if packing:
        return 1
    budget = MICRO_TOKENS_PER_GPU if on_gpu else MICRO_TOKENS_PER_CPU
    most = max(least, budget // row_tokens)
    return max(size for size in range(1, min(per_device, most) + 1) if per_device % size == 0)


def resolve_parallelism(
    written: str,
    offload: Offload,
    compute: tuple[int, int],
    parameters: int,
    adapter: AdapterType | None,
    gpu_memory: int | None,
) -> Parallelism:
    """Parallelism: how the devices share the work.

    Auto: what offload needs; DDP on one device, without GPUs, and where each GPU can hold all of it; else ZeRO-2, which
    sends no more than DDP does; ZeRO-3 where the weights themselves have to be divided. Of an adapter's training they
    are nearly all there is. In mixed precision a parameter takes 16 bytes, of which ZeRO-2 divides 14 and ZeRO-3 all
    (Rajbhandari et al. 2020, arXiv:1910.02054, sections 3 and 5); with DDP the trainer keeps float32, whose gradients
    lie in DDP's buckets a second time: 20 bytes. 4-bit weights are never divided: they can't be saved from their parts.

    Args:
        compute: nodes and GPUs per node.
        adapter: None: all weights are trained.
        gpu_memory: bytes of one GPU; None: unknown, so 24 GiB.
    """
    nodes, gpus = compute
    if written != AUTO:
        return Parallelism(written)
    if offload is not Offload.NONE:
        return Parallelism.ZERO3 if offload is Offload.ALL else Parallelism.ZERO2
    devices = nodes * gpus
    most = STATE_SHARE * (gpu_memory or UNKNOWN_GPU_MEMORY) / max(1, parameters)
    if adapter is not None:
        whole = devices <= 1 or adapter is AdapterType.QLORA or most >= HALF_BYTES
        return Parallelism.DDP if whole else Parallelism.ZERO3
    if devices <= 1 or most >= DDP_BYTES:
        return Parallelism.DDP
    return Parallelism.ZERO2 if 2 + 14 / devices <= most else Parallelism.ZERO3


def resolve_activation_checkpointing(written: bool | None, parameters: int, gpus_per_node: int) -> bool:
    """True where activations are recomputed instead of kept; Auto: see ``choose_activation_checkpointing``."""
    return choose_activation_checkpointing(parameters, gpus_per_node) if written is None else written


@dataclass(frozen=True, slots=True)
class Batches:
    """Batch sizes.

    Attributes:
        size: rows of a step over all devices.
        micro: rows at once on one device.
    """

    size: int
    micro: int


def resolve_batches(spec: FineTuneJobSpec, method: Method, dataset: DatasetReport) -> Batches | Failure:
    """Batch and micro batch, or what has to be written instead."""
    written, compute = spec.hyperparameters, spec.compute
    packing, least, group = is_packed(method), rows_at_once(method), answers_to_a_prompt(method)
    rows = count_sequences(method, dataset.train_rows, dataset.tokens.total)
    size = resolve_batch_size(written.batch_size, rows, compute.devices, group, least)
    if size % compute.devices:
        return _indivisible(size, compute.devices, group)
    per_device = size // compute.devices
    row_tokens = method.max_length * (2 if method.key in PAIRED else 1)
    micro = resolve_micro_batch_size(
        written.micro_batch_size, per_device, row_tokens, packing, compute.gpus_per_node > 0, least
    )
    if per_device % micro:
        return _micro_indivisible(micro, per_device)
    if micro < least:
        return _refusal("MicroBatchSize", KTO_NEEDS_ROWS)
    return Batches(size, micro)


def _refusal(reason: str, message: str) -> Failure:
    return Failure(category=FailureCategory.USER_ERROR, reason=reason, message=message)


def _indivisible(batch: int, devices: int, group: int) -> Failure:
    unit = lcm(devices, group)
    nearest = max(unit, round(batch / unit) * unit)
    message = f"batchSize: {batch} can't be shared evenly by {devices} GPUs: write {nearest}, or Auto."
    return _refusal("BatchSize", message)


def _micro_indivisible(micro: int, per_device: int) -> Failure:
    nearest = max(size for size in range(1, min(micro, per_device) + 1) if per_device % size == 0)
    return _refusal(
        "MicroBatchSize",
        f"microBatchSize: {micro} can't make up the {per_device} rows of a step on each GPU: write {nearest}, or "
        "Auto.",
    )
