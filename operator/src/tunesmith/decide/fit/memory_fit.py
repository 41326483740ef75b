"""Whether a training fits on its GPUs, and if not, what is the least to change so that it does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, Failure, ModelReport
from tunesmith_contract.run_config import Adapter, AdapterType, Offload, Parallelism, TrainConfig
from tunesmith_contract.shared_rules.defaults import rows_at_once

from .memory import Memory, estimate

GIB = 2**30

#: How many ways out a message names.
MAX_REMEDIES = 4

DOES_NOT_FIT = "DoesNotFit"

#: The kind of change that alters nothing of what is learned.
SPARED = "spared"
_AND = " and "


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that lets the run fit.

    Attributes:
        fields: what to write, such as ``compute.parallelism: ZeRO3``.
        memory: bytes of each GPU that it takes then.
    """

    fields: str
    memory: float


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict.

    Attributes:
        fits: None where the model's sizes or the GPU's memory are not known.
        memory: the estimate; None where the model's sizes are not known.
        available: bytes of one GPU.
        message: a sentence for people.
    """

    fits: bool | None
    memory: Memory | None
    available: int | None
    message: str

    @property
    def failure(self) -> Failure | None:
        """What the job fails with, if it does not fit."""
        if self.fits is not False:
            return None
        return Failure(category=FailureCategory.USER_ERROR, reason=DOES_NOT_FIT, message=self.message)


def judge_fit(
    model: ModelReport, dataset: DatasetReport, run: TrainConfig, available: int | None
) -> Fit | None:
    """Whether a run fits on GPUs of so many bytes; None for a run without GPUs, whose memory is the pod's own."""
    if run.gpus_per_node == 0:
        return None
    memory = estimate(model, run, dataset.tokens.max)
    if memory is None:
        return Fit(None, None, available, "The model's sizes are not known, so its memory was not estimated.")
    needed = f"Training takes about {_gibibytes(memory.total)} of each GPU"
    if available is None:
        unknown = (
            f"{needed}; how much there is, no node's label says (nvidia.com/gpu.memory): write compute.gpuMemory, "
            "such as 24Gi, to have it compared."
        )
        return Fit(None, memory, None, unknown)
    if memory.total <= available:
        return Fit(True, memory, available, f"{needed}, {_gibibytes(available)} are there.")
    remedies = tuple(islice(_distinct(model, dataset, run, available), MAX_REMEDIES))
    message = (
        f"Training needs {_gibibytes(memory.total)} of each GPU, {_gibibytes(available)} are there "
        f"({_largest_parts(memory)}). {_advice(remedies)}"
    )
    return Fit(False, memory, available, message)


def fit_free_settings(
    model: ModelReport,
    dataset: DatasetReport,
    run: TrainConfig,
    available: int | None,
    free: frozenset[str],
) -> TrainConfig:
    """The run with the first settings that fit, of those left to Auto; as it was, where it fits or none does.

    Args:
        free: of ``microBatchSize``, ``activationCheckpointing`` and ``parallelism`` those that are Auto.
    """
    if available is None or run.gpus_per_node == 0:
        return run

    def fits(candidate: TrainConfig) -> bool:
        memory = estimate(model, candidate, dataset.tokens.max)
        return memory is None or memory.total <= available

    return next((candidate for candidate in _free_candidates(run, free) if fits(candidate)), run)


def _free_candidates(run: TrainConfig, free: frozenset[str]) -> Iterator[TrainConfig]:
    """From what costs no speed to what costs the most."""
    shared = [run]
    if "parallelism" in free and _devices(run) > 1:
        stages = _stages(run)
        later = stages[stages.index(run.parallelism) + 1 :] if run.parallelism in stages else stages
        shared += [run.model_copy(update={"parallelism": stage}) for stage in later]
    for each in shared:
        micros = _smaller_micro_batches(each) if "microBatchSize" in free else ()
        yield each
        yield from (_with_micro(each, micro) for micro in micros)
        if "activationCheckpointing" in free and not each.activation_checkpointing:
            yield _checkpointed(each)
            yield from (_checkpointed(_with_micro(each, micro)) for micro in micros)


def _distinct(
    model: ModelReport, dataset: DatasetReport, run: TrainConfig, available: int
) -> Iterator[Remedy]:
    """Ways out from the nearest on, each kind once; two changes together only where no harmless one is enough."""
    seen: set[str] = set()
    for kind, fields, candidate in _candidates(run):
        if SPARED in seen and _AND in fields:
            return
        memory = estimate(model, candidate, dataset.tokens.max)
        if kind not in seen and memory is not None and memory.total <= available:
            seen.add(kind)
            yield Remedy(fields, memory.total)


Candidate = tuple[str, str, TrainConfig]


def _candidates(run: TrainConfig) -> Iterator[Candidate]:
    """Changes by how little they change what comes out: first one alone, then with the two that change nothing."""
    yield from _free_of_charge(run)
    yield from _single(run, "")
    spared, fields = run, []
    if run.hyperparameters.micro_batch_size > rows_at_once(run.method):
        spared = _with_micro(spared, _smaller_micro_batches(run)[-1])
        fields.append(f"hyperparameters.microBatchSize: {spared.hyperparameters.micro_batch_size}")
    if not run.activation_checkpointing:
        spared = _checkpointed(spared)
        fields.append("compute.activationCheckpointing: true")
    if fields:
        together = _AND.join(fields)
        yield SPARED, together, spared
        yield from _single(spared, f"{together}{_AND}")


def _free_of_charge(run: TrainConfig) -> Iterator[Candidate]:
    """What changes nothing of what is learned: smaller parts of the same batch, activations computed again."""
    for micro in _smaller_micro_batches(run):
        yield SPARED, f"hyperparameters.microBatchSize: {micro}", _with_micro(run, micro)
    if not run.activation_checkpointing:
        yield SPARED, "compute.activationCheckpointing: true", _checkpointed(run)


def _single(run: TrainConfig, before: str) -> Iterator[Candidate]:
    steps: tuple[Callable[[TrainConfig], Iterator[Candidate]], ...] = (
        _sharded,
        _smaller_training,
        _shorter,
        _offloaded,
        _more_gpus,
    )
    for step in steps:
        for kind, fields, candidate in step(run):
            yield kind, f"{before}{fields}", candidate


def _sharded(run: TrainConfig) -> Iterator[Candidate]:
    if _devices(run) == 1:
        return
    for stage in _stages(run):
        if run.parallelism not in (stage, Parallelism.ZERO3):
            yield "sharded", f"compute.parallelism: {stage}", run.model_copy(update={"parallelism": stage})


def _stages(run: TrainConfig) -> tuple[Parallelism, ...]:
    """What may be divided: of 4-bit weights all but the weights."""
    quantized = run.adapter is not None and run.adapter.type is AdapterType.QLORA
    return (Parallelism.ZERO2,) if quantized else (Parallelism.ZERO2, Parallelism.ZERO3)


def _smaller_training(run: TrainConfig) -> Iterator[Candidate]:
    """An adapter instead of all weights, 4-bit weights below it."""
    adapter = run.adapter
    if adapter is None:
        yield "LoRA", "adapter.type: LoRA", run.model_copy(update={"adapter": Adapter()})
    if adapter is None or adapter.type is not AdapterType.QLORA:
        quantized = (adapter or Adapter()).model_copy(update={"type": AdapterType.QLORA})
        update = {"adapter": quantized, "parallelism": Parallelism.DDP, "offload": Offload.NONE}
        yield "QLoRA", "adapter.type: QLoRA", run.model_copy(update=update)


def _shorter(run: TrainConfig) -> Iterator[Candidate]:
    member, key = run.method.member, run.method.key
    length = 1 << (member.max_length.bit_length() - 1)
    length = length if length < member.max_length else length // 2
    while length >= 256:
        shorter = Method.model_validate({key: member.model_copy(update={"max_length": length})})
        yield "shorter", f"method.{key}.maxLength: {length}", run.model_copy(update={"method": shorter})
        length //= 2


def _offloaded(run: TrainConfig) -> Iterator[Candidate]:
    offloads = {Parallelism.ZERO2: Offload.OPTIMIZER, Parallelism.ZERO3: Offload.ALL}
    for stage in _stages(run) if run.offload is Offload.NONE else ():
        offload = offloads[stage]
        fields = f"compute.parallelism: {stage} with compute.offload: {offload}"
        yield "offload", fields, run.model_copy(update={"parallelism": stage, "offload": offload})


def _more_gpus(run: TrainConfig) -> Iterator[Candidate]:
    for gpus in (2, 4, 8):
        if gpus > run.gpus_per_node and run.hyperparameters.batch_size % (gpus * run.nodes) == 0:
            stage = _stages(run)[-1]
            wide = run.model_copy(update={"gpus_per_node": gpus, "parallelism": stage})
            share = wide.hyperparameters.batch_size // _devices(wide)
            wide = _with_micro(wide, min(wide.hyperparameters.micro_batch_size, share))
            yield "gpus", f"compute.gpusPerNode: {gpus} with compute.parallelism: {stage}", wide


def _smaller_micro_batches(run: TrainConfig) -> list[int]:
    """Sizes below the present one that divide a device's share, the largest first."""
    numbers = run.hyperparameters
    share = max(1, numbers.batch_size // _devices(run))
    sizes = range(numbers.micro_batch_size - 1, rows_at_once(run.method) - 1, -1)
    return [size for size in sizes if share % size == 0]


def _with_micro(run: TrainConfig, micro: int) -> TrainConfig:
    numbers = run.hyperparameters.model_copy(update={"micro_batch_size": micro})
    return run.model_copy(update={"hyperparameters": numbers})


def _checkpointed(run: TrainConfig) -> TrainConfig:
    return run.model_copy(update={"activation_checkpointing": True})


def _devices(run: TrainConfig) -> int:
    return run.nodes * max(1, run.gpus_per_node)


def _advice(remedies: tuple[Remedy, ...]) -> str:
    if not remedies:
        return "No single setting makes it fit: choose a smaller model, or GPUs with more memory."
    ways = "; or ".join(f"{remedy.fields} ({_gibibytes(remedy.memory)})" for remedy in remedies)
    return f"What fits: {ways}."


def _largest_parts(memory: Memory) -> str:
    parts = sorted(memory.parts().items(), key=lambda part: -part[1])[:3]
    return ", ".join(f"{name} {_gibibytes(size)}" for name, size in parts)


def _gibibytes(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
