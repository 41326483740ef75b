"""Estimate of the GPU memory of the serving engine, and its comparison with the memory of the GPUs.

Taken from the source of vLLM 0.32: ``v1/worker/gpu_worker.py`` (what remains for the cache), ``lora/layers`` (sizes of
adapter slots, which exist from the start for every layer, whatever the adapters train), ``config/cache.py``.
"""

from dataclasses import dataclass

from tunesmith_contract.report import Linear, ModelReport, ModelShape

from .activations import COMPUTE, FLOAT
from .memory import CONTEXT, QUANTIZED

GIB = 2**30

#: Share of a GPU's memory that the engine takes; default of ``--gpu-memory-utilization``.
UTILIZATION = 0.92
#: Recorded CUDA graphs and workspaces of attention and sampling: 0.5 to 1.5 GiB are logged by engines of 7B to 70B.
GRAPHS = 1.0 * GIB
#: Memory from which the engine handles more requests and tokens at once, and those numbers below and from it.
LARGE_GPU = 70 * GIB
TOKENS_AT_ONCE, TOKENS_AT_ONCE_LARGE = 2048, 8192
REQUESTS_AT_ONCE, REQUESTS_AT_ONCE_LARGE = 256, 1024
#: Tokens of a cache block: the engine does not start with less.
BLOCK = 16

#: Last parts of the names of layers that split their inputs among GPUs; all others split their outputs.
ROW_PARALLEL = frozenset(
    {"dense", "o_proj", "down_proj", "out_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "wo"}
)


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """Settings of the engine that determine its memory.

    Attributes:
        slots: number of adapters in GPU memory.
        rank: the largest rank that a slot holds.
        sharded: both matrices of an adapter are divided among the GPUs, not only one.
        max_length: tokens of the longest context; None: what the model allows, or less if less fits.
        utilization: share of the GPU's memory that the engine takes.
    """

    gpus: int
    slots: int
    rank: int
    sharded: bool = False
    max_length: int | None = None
    utilization: float = UTILIZATION


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Memory of one GPU in bytes by purpose, without the cache of keys and values."""

    weights: float
    adapters: float
    overhead: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.weights + self.adapters + self.overhead


@dataclass(frozen=True, slots=True)
class EngineFit:
    """Memory verdict on the engine.

    Attributes:
        fits: None if the sizes of the model or the memory of the GPUs are unknown.
        message: an explanation for people.
        impossible: the weights alone exceed every GPU.
        gpu_memory_unknown: the sizes of the model are known, but not the memory of the GPUs.
    """

    fits: bool | None
    message: str
    impossible: bool = False
    gpu_memory_unknown: bool = False


def judge_engine(
    model: ModelReport, setup: EngineSetup, smallest: int | None, largest: int | None
) -> EngineFit:
    """Memory verdict on an engine that serves the model.

    Args:
        smallest, largest: bytes of the smallest and the largest GPU that the pods may get; None: unknown.
    """
    weights = weight_bytes(model) / setup.gpus
    if smallest is None or largest is None:
        return EngineFit(
            None,
            f"The weights take about {_gibibytes(weights)} of each GPU. The memory of the GPUs is unknown, because no "
            "label of the nodes that the pods may get says it: write engine.gpuMemory, such as 24Gi, to have it "
            "compared.",
            gpu_memory_unknown=True,
        )
    if weights > largest:
        return EngineFit(
            False,
            f"The weights of the model take {_gibibytes(weights)} of each of {setup.gpus} GPUs, but a GPU has only "
            f"{_gibibytes(largest)}. No pod is started: set engine.gpus to {_enough_gpus(model, largest)} or "
            "more, choose GPUs with more memory or a smaller model, or write engine.gpuMemory, such as 80Gi, if an "
            "autoscaler adds nodes with other GPUs.",
            impossible=True,
        )
    if model.shape is None or not model.shape.layers:
        return EngineFit(
            None,
            f"The weights take about {_gibibytes(weights)} of each GPU; {_gibibytes(smallest)} are available. The "
            "sizes of the model's layers are unknown, so the memory of adapters and requests was not estimated.",
        )
    return _judge_requests(model, model.shape, setup, smallest)


def estimate_engine(model: ModelReport, shape: ModelShape, setup: EngineSetup, memory: int) -> EngineMemory:
    """Memory that the engine takes before any request, on one GPU with so many bytes."""
    return EngineMemory(
        weights=weight_bytes(model) / setup.gpus,
        adapters=setup.slots * slot_bytes(shape, setup),
        overhead=CONTEXT + GRAPHS + _batch_bytes(shape, setup.gpus, memory),
    )


def weight_bytes(model: ModelReport) -> float:
    """Bytes of all weights: 16 bits each, unless the model is quantized."""
    size = COMPUTE if model.quantization is None else QUANTIZED.get(model.quantization, 1.0)
    return model.parameters * size


def slot_bytes(shape: ModelShape, setup: EngineSetup) -> float:
    """Bytes on each GPU of the slot of one adapter, which is of the largest rank and covers every layer."""
    gpus, rank = setup.gpus, setup.rank

    def divided(layer: Linear) -> float:
        """Inputs and outputs whose rows one GPU holds for this layer."""
        first, second = layer.inputs, layer.outputs
        if layer.name.rpartition(".")[2] in ROW_PARALLEL:
            first, second = second, first
        return (first / gpus if setup.sharded else first) + second / gpus

    layers = sum(divided(layer) * layer.layers for layer in (*shape.linears, *shape.experts))
    # Embedding and output layer have slots too, in models such as Llama, and those are not divided.
    vocabulary = (shape.vocabulary_size + shape.hidden_size) * (1 if shape.tied_embeddings else 2)
    return float(COMPUTE * rank * (layers + vocabulary))


def token_bytes(shape: ModelShape, gpus: int) -> float:
    """Bytes of keys and values of one token on each GPU; a head is not divided."""
    heads = max(1, -(-shape.key_value_heads // gpus))
    return float(2 * COMPUTE * shape.layers * heads * shape.head_size)


def _judge_requests(model: ModelReport, shape: ModelShape, setup: EngineSetup, memory: int) -> EngineFit:
    """Verdict by what remains for the cache, which must hold the longest request."""
    parts = estimate_engine(model, shape, setup, memory)
    left = memory * setup.utilization - parts.total
    room = int(left // token_bytes(shape, setup.gpus)) if left > 0 else 0
    needed = (
        f"The engine takes about {_gibibytes(parts.total)} of each GPU before requests (weights "
        f"{_gibibytes(parts.weights)}, {setup.slots} adapters of rank {setup.rank} {_gibibytes(parts.adapters)}, "
        f"overhead {_gibibytes(parts.overhead)}) and may take {_gibibytes(memory * setup.utilization)} of "
        f"{_gibibytes(memory)}"
    )
    wanted = setup.max_length if setup.max_length is not None else BLOCK
    if room < wanted:
        cause = f"a request of {wanted} tokens" if setup.max_length is not None else "any request"
        return EngineFit(False, f"{needed}: that leaves no room for {cause}. {_advice(setup, room)}")
    limit = setup.max_length or model.max_position_embeddings
    if room < limit:
        return EngineFit(
            True, f"{needed}. Requests are limited to about {room} tokens, where the model allows {limit}."
        )
    return EngineFit(True, f"{needed}. The rest holds about {room} tokens of requests; one may have {limit}.")


def _batch_bytes(shape: ModelShape, gpus: int, memory: int) -> float:
    """Bytes of the largest batch: activations of one block, and logits of all requests in float32, twice."""
    large = memory >= LARGE_GPU
    tokens = TOKENS_AT_ONCE_LARGE if large else TOKENS_AT_ONCE
    requests = REQUESTS_AT_ONCE_LARGE if large else REQUESTS_AT_ONCE
    widths = 4 * shape.hidden_size + 3 * shape.intermediate_size / gpus
    return COMPUTE * tokens * widths + 2 * FLOAT * requests * shape.vocabulary_size


def _advice(setup: EngineSetup, room: int) -> str:
    options = []
    if setup.max_length is not None and room >= BLOCK:
        options.append(f"set engine.maxModelLength to {room} or less, or leave it out")
    if setup.slots > 1 or setup.rank > 1:
        options.append("lower engine.maxRank or engine.residentAdapters")
    options.append("raise engine.gpus, or choose GPUs with more memory")
    text = "; or ".join(options)
    return f"{text[0].upper()}{text[1:]}."


def _enough_gpus(model: ModelReport, memory: int) -> int:
    """Smallest power of two of GPUs that hold the weights with room for the rest."""
    gpus = 1
    while weight_bytes(model) / gpus > memory * UTILIZATION * 0.85:
        gpus *= 2
    return gpus


def _gibibytes(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
