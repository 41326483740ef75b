"""What every ``Auto`` comes to, and why."""

from math import ceil

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.methods import Method, SFTMethod
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.run_config import (
    Adapter,
    Checkpoints,
    Hyperparameters,
    PrepareConfig,
    TrainConfig,
)

LORA_LEARNING_RATE = 2e-4

MAX_BATCH = 16
STEPS_PER_EPOCH = 32

MICRO_TOKENS_PER_GPU = 8192
MICRO_TOKENS_PER_CPU = 2048


def resolve_learning_rate(written: str) -> float:
    """The peak learning rate.

    Auto: 2e-4 for LoRA by SFT, ten times the 2e-5 that full fine-tuning takes. "LoRA Without Regret"
    (Schulman et al., Thinking Machines, 2025): LoRA's best rate is about ten times that, whatever the rank.
    """
    return LORA_LEARNING_RATE if written == "Auto" else float(written)


def resolve_batch_size(written: str | int, train_rows: int, devices: int) -> int:
    """Rows per optimizer step, over all devices.

    Auto: 16 rows, or so few (a power of two) that an epoch has at least 32 steps; a multiple of the devices.
    "LoRA Without Regret": large batches cost LoRA more than they cost full fine-tuning; it stays below 32.
    """
    if written != "Auto":
        return int(written)
    wanted = MAX_BATCH
    while wanted > 1 and train_rows < wanted * STEPS_PER_EPOCH:
        wanted //= 2
    return ceil(wanted / devices) * devices


def resolve_micro_batch_size(per_device: int, max_length: int, packing: bool, on_gpu: bool) -> int:
    """Rows that go through the model at once on one device; accumulation makes up the rest.

    The largest divisor of the device's share whose longest rows stay within 8,192 tokens (2,048 on a CPU).
    Packed rows go one at a time: SDPA masks them by a dense matrix over all tokens of the batch.
    """
    if packing:
        return 1
    budget = MICRO_TOKENS_PER_GPU if on_gpu else MICRO_TOKENS_PER_CPU
    most = max(1, budget // max_length)
    return max(size for size in range(1, min(per_device, most) + 1) if per_device % size == 0)


def resolve_run(spec: FineTuneJobSpec, inputs: Inputs, report: RunReport) -> TrainConfig | Failure:
    """All that training is told, or what a person has to change before it can begin.

    Args:
        report: the success of prepare.
    """
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    assert report.dataset is not None
    assert report.model is not None
    written, compute = spec.hyperparameters, spec.compute
    devices = compute.nodes * max(1, compute.gpus_per_node)
    batch = resolve_batch_size(written.batch_size, report.dataset.train_rows, devices)
    if batch % devices:
        return _indivisible(batch, devices)
    sft = config.method.sft
    assert sft is not None
    micro = resolve_micro_batch_size(
        batch // devices, sft.max_length, sft.packing, on_gpu=compute.gpus_per_node > 0
    )
    return TrainConfig(
        owner=config.owner,
        base_model=config.base_model,
        base_model_revision=report.model.revision,
        dataset_digest=report.dataset.digest,
        method=config.method,
        adapter=_adapter(spec),
        hyperparameters=Hyperparameters(
            epochs=written.epochs,
            max_steps=written.max_steps,
            learning_rate=resolve_learning_rate(written.learning_rate),
            batch_size=batch,
            micro_batch_size=micro,
            warmup_ratio=float(written.warmup_ratio),
            weight_decay=float(written.weight_decay),
            scheduler=written.scheduler,
            seed=written.seed,
        ),
        checkpoints=Checkpoints(every_steps=spec.checkpoints.every_steps, keep=spec.checkpoints.keep),
        nodes=compute.nodes,
        gpus_per_node=compute.gpus_per_node,
        image=inputs.image,
        output=config.output,
    )


def resolve_method(spec: FineTuneJobSpec) -> Method:
    """The method as the trainer reads it."""
    sft = spec.method.sft
    assert sft is not None
    return Method(
        sft=SFTMethod(
            assistant_only_loss=sft.assistant_only_loss, packing=sft.packing, max_length=sft.max_length
        )
    )


def _adapter(spec: FineTuneJobSpec) -> Adapter:
    adapter = spec.adapter
    return Adapter(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=float(adapter.dropout),
        target_modules=tuple(adapter.target_modules),
    )


def _indivisible(batch: int, devices: int) -> Failure:
    nearest = max(devices, round(batch / devices) * devices)
    return Failure(
        category=FailureCategory.USER_ERROR,
        reason="BatchSize",
        message=f"batchSize: {batch} can't be shared evenly by {devices} GPUs: write {nearest}, or Auto.",
    )
