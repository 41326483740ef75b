"""Comparison of a training run with the memory of its GPUs, with the smallest changes that make it fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tunesmith.api.reasons import FineTuneJobReason
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, Failure, ModelReport
from tunesmith_contract.run_config import Adapter, AdapterType, Offload, Parallelism, TrainConfig
from tunesmith_contract.shared_rules.defaults import rows_at_once
from tunesmith_contract.shared_rules.gpus import usable_memory

from .gpus import ReachableGPUs
from .memory import Memory, estimate

GIB = 2**30

#: Maximum number of changes that a message suggests.
MAX_CHANGES = 4

#: Kind of change that does not alter the result of training.
EQUIVALENT = "equivalent"
_AND = " and "


@dataclass(frozen=True, slots=True)
class FittingChange:
    """Change of settings with which the run fits.

    Attributes:
        fields: the settings to write, such as ``compute.parallelism: ZeRO3``.
        memory: bytes of each GPU that the run takes with them.
    """

    fields: str
    memory: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Memory verdict on a run.

    Attributes:
        fits: None if the sizes of the model or the memory of the GPU are unknown.
        reason: reason of the condition.
        memory: the estimate; None if the sizes of the model are unknown.
        total: bytes of one GPU, as labels or ``compute.gpuMemory`` say; None: unknown.
        message: an explanation for people.
    """

    fits: bool | None
    reason: FineTuneJobReason
    memory: Memory | None
    total: int | None
    message: str

    @property
    def available(self) -> int | None:
        """Bytes of one GPU that training is planned with."""
        return None if self.total is None else usable_memory(self.total)

    @property
    def failure(self) -> Failure | None:
        """Failure of the job, if the run does not fit."""
        if self.fits is not False:
            return None
        return Failure(category=FailureCategory.USER_ERROR, reason=self.reason, message=self.message)


def judge_fit(
    model: ModelReport, dataset: DatasetReport, run: TrainConfig, gpus: ReachableGPUs
) -> Fit | None:
    """Verdict on a run on the GPUs that it may get, or None for a run without GPUs."""
    if run.gpus_per_node == 0:
        return None
    memory, total = estimate(model, run, dataset.tokens.max), gpus.memory
    if gpus.obstacle is not None:
        return Fit(False, gpus.obstacle.reason, memory, total, gpus.obstacle.message)
    unknown = FineTuneJobReason.GPU_MEMORY_UNKNOWN
    if memory is None:
        message = "The sizes of the model are unknown, so its memory was not estimated."
        return Fit(None, unknown, None, total, message)
    needed = f"Training takes about {_gibibytes(memory.total)} of each GPU"
    if total is None:
        return Fit(None, unknown, memory, None, f"{needed}. {gpus.note}")
    available = usable_memory(total)
    if memory.total <= available:
        message = f"{needed}; {_gibibytes(available)} of its {_gibibytes(total)} are available. {gpus.note}"
        return Fit(True, FineTuneJobReason.FITS, memory, total, message.rstrip())
    changes = tuple(islice(_fitting_changes(model, dataset, run, available), MAX_CHANGES))
    message = (
        f"Training needs {_gibibytes(memory.total)} of each GPU, but only {_gibibytes(available)} of its "
        f"{_gibibytes(total)} are available ({_largest_parts(memory)}). {gpus.note}"
    )
    return Fit(False, FineTuneJobReason.DOES_NOT_FIT, memory, total, f"{message.rstrip()} {_advice(changes)}")


def fit_free_settings(
    model: ModelReport,
    dataset: DatasetReport,
    run: TrainConfig,
    total: int | None,
    free: frozenset[str],
) -> TrainConfig:
    """Run with the first settings that fit, of those left to Auto; unchanged if it fits already or none does.

    Args:
        total: bytes of one GPU; None: unknown.
        free: those of ``microBatchSize``, ``activationCheckpointing`` and ``parallelism`` that are Auto.
    """
    if total is None or run.gpus_per_node == 0:
        return run
    available = usable_memory(total)

    def fits(candidate: TrainConfig) -> bool:
        memory = estimate(model, candidate, dataset.tokens.max)
        return memory is None or memory.total <= available

    return next((candidate for candidate in _free_variants(run, free) if fits(candidate)), run)


def _free_variants(run: TrainConfig, free: frozenset[str]) -> Iterator[TrainConfig]:
    """Runs with other free settings, from the fastest to the slowest."""
    shared = [run]
    if "parallelism" in free and _devices(run) > 1:
        stages = _stages(run)
        later = stages[stages.index(run.parallelism) + 1 :] if run.parallelism in stages else stages
        shared += [run.model_copy(update={"parallelism": stage}) for stage in later]
    for variant in shared:
        sizes = _smaller_micro_batches(variant) if "microBatchSize" in free else ()
        yield variant
        yield from (_with_micro_batch(variant, size) for size in sizes)
        if "activationCheckpointing" in free and not variant.activation_checkpointing:
            yield _with_checkpointing(variant)
            yield from (_with_checkpointing(_with_micro_batch(variant, size)) for size in sizes)


def _fitting_changes(
    model: ModelReport, dataset: DatasetReport, run: TrainConfig, available: int
) -> Iterator[FittingChange]:
    """Changes that make the run fit, smallest first, one of each kind.

    Two changes together are suggested only if no equivalent change is enough.
    """
    fitting_kinds: set[str] = set()
    for kind, fields, candidate in _variants(run):
        if EQUIVALENT in fitting_kinds and _AND in fields:
            return
        memory = estimate(model, candidate, dataset.tokens.max)
        if kind not in fitting_kinds and memory is not None and memory.total <= available:
            fitting_kinds.add(kind)
            yield FittingChange(fields, memory.total)


#: Kind of a change, the settings to write, and the changed run.
Variant = tuple[str, str, TrainConfig]


def _variants(run: TrainConfig) -> Iterator[Variant]:
    """Variants of a run by how little they alter its result: single changes, then together with equivalent ones."""
    yield from _equivalent_variants(run)
    yield from _altering_variants(run, "")
    reduced, fields = run, []
    if run.hyperparameters.micro_batch_size > rows_at_once(run.method):
        reduced = _with_micro_batch(reduced, _smaller_micro_batches(run)[-1])
        fields.append(f"hyperparameters.microBatchSize: {reduced.hyperparameters.micro_batch_size}")
    if not run.activation_checkpointing:
        reduced = _with_checkpointing(reduced)
        fields.append("compute.activationCheckpointing: true")
    if fields:
        together = _AND.join(fields)
        yield EQUIVALENT, together, reduced
        yield from _altering_variants(reduced, f"{together}{_AND}")


def _equivalent_variants(run: TrainConfig) -> Iterator[Variant]:
    """Variants with the same result: smaller parts of the same batch, or recomputed activations."""
    for micro in _smaller_micro_batches(run):
        yield EQUIVALENT, f"hyperparameters.microBatchSize: {micro}", _with_micro_batch(run, micro)
    if not run.activation_checkpointing:
        yield EQUIVALENT, "compute.activationCheckpointing: true", _with_checkpointing(run)


def _altering_variants(run: TrainConfig, before: str) -> Iterator[Variant]:
    steps: tuple[Callable[[TrainConfig], Iterator[Variant]], ...] = (
        _sharded,
        _smaller_training,
        _shorter,
        _offloaded,
        _more_gpus,
    )
    for step in steps:
        for kind, fields, candidate in step(run):
            yield kind, f"{before}{fields}", candidate


def _sharded(run: TrainConfig) -> Iterator[Variant]:
    if _devices(run) == 1:
        return
    for stage in _stages(run):
        if run.parallelism not in (stage, Parallelism.ZERO3):
            yield "sharded", f"compute.parallelism: {stage}", run.model_copy(update={"parallelism": stage})


def _stages(run: TrainConfig) -> tuple[Parallelism, ...]:
    """ZeRO stages that the run can use: 4-bit weights can't be divided."""
    quantized = run.adapter is not None and run.adapter.type is AdapterType.QLORA
    return (Parallelism.ZERO2,) if quantized else (Parallelism.ZERO2, Parallelism.ZERO3)


def _smaller_training(run: TrainConfig) -> Iterator[Variant]:
    """Variants that train an adapter instead of all weights, or on 4-bit weights."""
    adapter = run.adapter
    if adapter is None:
        yield "LoRA", "adapter.type: LoRA", run.model_copy(update={"adapter": Adapter()})
    if adapter is None or adapter.type is not AdapterType.QLORA:
        quantized = (adapter or Adapter()).model_copy(update={"type": AdapterType.QLORA})
        update = {"adapter": quantized, "parallelism": Parallelism.DDP, "offload": Offload.NONE}
        yield "QLoRA", "adapter.type: QLoRA", run.model_copy(update=update)


def _shorter(run: TrainConfig) -> Iterator[Variant]:
    member, key = run.method.member, run.method.key
    length = 1 << (member.max_length.bit_length() - 1)
    length = length if length < member.max_length else length // 2
    while length >= 256:
        shorter = Method.model_validate({key: member.model_copy(update={"max_length": length})})
        yield "shorter", f"method.{key}.maxLength: {length}", run.model_copy(update={"method": shorter})
        length //= 2


def _offloaded(run: TrainConfig) -> Iterator[Variant]:
    offloads = {Parallelism.ZERO2: Offload.OPTIMIZER, Parallelism.ZERO3: Offload.ALL}
    for stage in _stages(run) if run.offload is Offload.NONE else ():
        offload = offloads[stage]
        fields = f"compute.parallelism: {stage} with compute.offload: {offload}"
        yield "offload", fields, run.model_copy(update={"parallelism": stage, "offload": offload})


def _more_gpus(run: TrainConfig) -> Iterator[Variant]:
    for gpus in (2, 4, 8):
        if gpus > run.gpus_per_node and run.hyperparameters.batch_size % (gpus * run.nodes) == 0:
            stage = _stages(run)[-1]
            wide = run.model_copy(update={"gpus_per_node": gpus, "parallelism": stage})
            share = wide.hyperparameters.batch_size // _devices(wide)
            wide = _with_micro_batch(wide, min(wide.hyperparameters.micro_batch_size, share))
            yield "gpus", f"compute.gpusPerNode: {gpus} with compute.parallelism: {stage}", wide


def _smaller_micro_batches(run: TrainConfig) -> list[int]:
    """Smaller micro-batch sizes that divide the share of a device, largest first."""
    numbers = run.hyperparameters
    share = max(1, numbers.batch_size // _devices(run))
    sizes = range(numbers.micro_batch_size - 1, rows_at_once(run.method) - 1, -1)
    return [size for size in sizes if share % size == 0]


def _with_micro_batch(run: TrainConfig, micro: int) -> TrainConfig:
    numbers = run.hyperparameters.model_copy(update={"micro_batch_size": micro})
    return run.model_copy(update={"hyperparameters": numbers})


def _with_checkpointing(run: TrainConfig) -> TrainConfig:
    return run.model_copy(update={"activation_checkpointing": True})


def _devices(run: TrainConfig) -> int:
    return run.nodes * max(1, run.gpus_per_node)


def _advice(changes: tuple[FittingChange, ...]) -> str:
    if not changes:
        return "No single change makes it fit: choose a smaller model, or GPUs with more memory."
    suggestions = "; or ".join(f"{change.fields} ({_gibibytes(change.memory)})" for change in changes)
    return f"Settings that fit: {suggestions}."


def _largest_parts(memory: Memory) -> str:
    parts = sorted(memory.parts().items(), key=lambda part: -part[1])[:3]
    return ", ".join(f"{name} {_gibibytes(size)}" for name, size in parts)


def _gibibytes(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
