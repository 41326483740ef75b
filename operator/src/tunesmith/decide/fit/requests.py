"""Requests of CPU, host memory and local disk for containers that hold a model, derived from its size.

Schedulers place pods by requests, and autoscalers choose machines by them; a container that takes much more than it
requests is the first to be evicted. Requests that a resource writes replace these one by one.
"""

from collections.abc import Iterable, Mapping
from math import ceil

from tunesmith.api.common import Resources
from tunesmith.api.status import ContainerRequests
from tunesmith.manifests.container_resources import CPU, DISK, MEMORY, effective_requests
from tunesmith.manifests.stage_jobs import SMALL_REQUESTS, WITHOUT_MODEL_REQUESTS
from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import (
    AdapterType,
    EvaluateConfig,
    Offload,
    OutputFormat,
    Parallelism,
    TrainConfig,
)
from tunesmith_contract.shared_rules.defaults import accumulates_in_float32
from tunesmith_contract.uris import MOUNTED, Scheme, parse_uri

from .checkpoint_size import checkpoint_bytes, trained_parameters
from .memory import QUANTIZED

GIB = 2**30

#: Cores for each GPU: the process that feeds it, its data loader and library threads. Not four, because the smallest
#: machines with a GPU have four cores and keep a part of one for the system.
CORES_PER_GPU = 3
#: A process that uses a GPU: Python, PyTorch and the training or inference library, CUDA's context and its libraries.
GPU_PROCESS = 4 * GIB
#: A process without a GPU.
CPU_PROCESS = 2 * GIB
#: Largest file into which the weights of published models are divided; its pages count while it is read.
LARGEST_FILE = 5 * 10**9
#: ``/dev/shm`` for the communication of several GPUs: memory that counts as the pod's.
TRAINING_SHARED_MEMORY = 8 * GIB
ENGINE_SHARED_MEMORY = 4 * GIB

#: Bytes of a parameter in 16 bits, in float32, and of its optimizer state in float32 (a copy and two moments).
HALF, FULL, OPTIMIZER_STATE = 2, 4, 12
#: DeepSpeed's own estimate of the state that it keeps in host memory (``estimate_zero2_model_states_mem_needs``,
#: ``estimate_zero3_model_states_mem_needs``): optimizer state and float32 gradients with pinned buffers.
OFFLOADED_STATE = 16 * 1.5
OFFLOADED_WEIGHTS = 2 * 1.5

#: Memory of a merge: the weights, one matrix at a time once more, and the pages of the written files.
MERGE = 1.2
#: Disk for a fetched model: its weights, and tokenizer, configuration and parts of an interrupted download.
FETCHED = 1.2
#: Disk for compiled kernels and logs, wherever a container needs disk for more.
KERNELS = 2 * GIB
#: Bytes of a weight in GGUF with 8 bits and a scale for 32 weights.
GGUF = 1.1


def shown_requests(defaults: Mapping[str, str], resources: Resources | None) -> ContainerRequests:
    """Requests of a container for status: the defaults under those that people wrote."""
    merged = effective_requests(defaults, resources)
    return ContainerRequests(
        cpu=merged.get(CPU), memory=merged.get(MEMORY), ephemeral_storage=merged.get(DISK)
    )


def training_requests(model: ModelReport, run: TrainConfig, cached: bool = False) -> dict[str, str]:
    """Requests of each training pod; small ones if the size of the model is unknown.

    Memory is that of the processes, of ``/dev/shm``, of offloaded state, and of the fuller of two moments: loading
    the model before training, and gathering, measuring or merging it afterwards.

    Args:
        cached: models of the hub are kept on a claim, not on the pod's disk.
    """
    if not model.parameters:
        return dict(SMALL_REQUESTS)
    disk = _training_disk(model, run, cached)
    end = _gathered_bytes(model, run)
    if run.gpus_per_node == 0:
        trained = FULL + OPTIMIZER_STATE if run.adapter is None else FULL
        memory = CPU_PROCESS + trained * model.parameters + end
        return _requests(1, max(memory, 4 * GIB), disk)
    shared = TRAINING_SHARED_MEMORY if run.gpus_per_node > 1 else 0
    processes = CPU_PROCESS + run.gpus_per_node * GPU_PROCESS
    memory = processes + shared + max(_loaded_bytes(model, run), end) + _offloaded_bytes(model, run)
    return _requests(CORES_PER_GPU * run.gpus_per_node, memory, disk)


def evaluation_requests(
    parameters: int | None, config: EvaluateConfig, cached: bool = False
) -> dict[str, str]:
    """Requests of the evaluation pod; small ones if the sizes of its models are unknown, or if it loads none.

    One process for each GPU loads the models straight to it, one after the other, and they share the pages of the file
    that is read. On a CPU one process keeps the base model in float32, and beside it a fully fine-tuned one.

    Args:
        parameters: those of the largest model that is known.
        cached: models of the hub are kept on a claim, not on the pod's disk.
    """
    loaded = [side for side in config.sides if side.is_loaded]
    if not loaded:
        return dict(WITHOUT_MODEL_REQUESTS)
    if not parameters:
        return dict(SMALL_REQUESTS)
    models = {side.model or config.base_model for side in loaded} - {None}
    artifacts = (source.uri for side in loaded for source in (side.adapter, side.checkpoint) if source)
    disk = FETCHED * HALF * parameters * sum(_is_fetched(uri or "", cached) for uri in models)
    disk += GIB * sum(_is_fetched(uri, cached) for uri in artifacts)
    if config.gpus == 0:
        memory = CPU_PROCESS + 2 * FULL * parameters
        return _requests(1, max(memory, 4 * GIB), disk)
    memory = CPU_PROCESS + config.gpus * GPU_PROCESS + min(HALF * parameters, LARGEST_FILE)
    return _requests(CORES_PER_GPU + config.gpus - 1, memory, disk)


def engine_requests(
    weights_bytes: int | None,
    gpus: int,
    resident_adapters: int,
    max_rank: int = 64,
    fetched: bool = False,
) -> dict[str, str]:
    """Requests of the inference engine's container; empty on a CPU if the size of the model is unknown.

    With GPUs there are the server, the scheduler and a process for each GPU, each on a core of its own. Weights pass
    through the page cache one file at a time. Each of the GPU processes keeps all resident adapters whole. On a CPU the
    weights are held in float32, and a gibibyte of keys and values.

    Args:
        weights_bytes: bytes of the model's weights in 16 bits; None: unknown.
        resident_adapters: adapters that are kept in host memory.
        max_rank: their largest rank.
        fetched: the model is fetched to the pod's disk.
    """
    disk = FETCHED * (weights_bytes or 0) if fetched else 0.0
    adapters = resident_adapters * adapter_bytes(weights_bytes // HALF, max_rank) if weights_bytes else 0.0
    if gpus == 0:
        memory = CPU_PROCESS + GIB + FULL / HALF * weights_bytes + adapters if weights_bytes else 0.0
        return _requests(1, memory, disk) if weights_bytes else {}
    shared = ENGINE_SHARED_MEMORY if gpus > 1 else 0
    reading = LARGEST_FILE if weights_bytes is None else min(weights_bytes, LARGEST_FILE)
    memory = CPU_PROCESS + gpus * (GPU_PROCESS + adapters) + shared + reading
    return _requests(2 + gpus, memory, disk)


def adapter_bytes(parameters: int, rank: int) -> float:
    """Bytes of an adapter on all linear layers in 16 bits, from the size of the model alone.

    Transformers of width h have about h / 128 blocks of 12 h² weights, whose linear layers have inputs and outputs of
    18 h together. Public models from 1 to 70 billion parameters deviate by at most a fifth.
    """
    width = (parameters * 128 / 12) ** (1 / 3)
    return float(HALF * rank * 18 * width * (width / 128))


def _loaded_bytes(model: ModelReport, run: TrainConfig) -> float:
    """Bytes that all processes of a pod hold while they load the model.

    Weights go straight to the GPUs, and the processes share the pages of the file that is read. With ZeRO-3 the first
    process loads all weights, and divides them.
    """
    if run.parallelism is Parallelism.ZERO3:
        return _weight(model) * model.parameters
    return min(_weight(model) * model.parameters, LARGEST_FILE)


def _gathered_bytes(model: ModelReport, run: TrainConfig) -> float:
    """Bytes of the largest copy of the model in host memory after training.

    An adapter is merged there, and one on 4-bit weights is measured beside the 16-bit model; DeepSpeed gathers all
    weights there.
    """
    if run.adapter is not None and {OutputFormat.MERGED, OutputFormat.GGUF} & set(run.formats):
        return MERGE * HALF * model.parameters
    measured = run.adapter is not None and run.adapter.type is AdapterType.QLORA
    gathered = run.adapter is None and run.parallelism is not Parallelism.DDP
    return float(HALF * model.parameters) if measured or gathered else 0.0


def _offloaded_bytes(model: ModelReport, run: TrainConfig) -> float:
    """Bytes of the training state that a node keeps in host memory; the nodes share it."""
    if run.offload is Offload.NONE:
        return 0.0
    weights = OFFLOADED_WEIGHTS * model.parameters if run.offload is Offload.ALL else 0.0
    devices = run.nodes * run.gpus_per_node
    # ZeRO-3 adds up gradients in host memory. The estimate has room for sums in 16 bits; float32 takes twice that.
    in_float32 = accumulates_in_float32(run.hyperparameters.batch_size // max(1, devices))
    sums = FULL - HALF if run.parallelism is Parallelism.ZERO3 and in_float32 else 0
    return ((OFFLOADED_STATE + sums) * trained_parameters(model, run) + weights) / run.nodes


def _training_disk(model: ModelReport, run: TrainConfig, cached: bool) -> float:
    """Bytes on the pod's own disk: fetched models, and work files that go to a bucket from there."""
    models = [run.base_model, *_further_models(run)]
    fetched = FETCHED * HALF * model.parameters * sum(_is_fetched(uri, cached) for uri in models)
    if not _is_fetched(run.workspace or run.output, cached=False):
        return fetched
    # Beside those that are kept, the best one and the next.
    checkpoints = (run.checkpoints.keep + 2) * checkpoint_bytes(model, run)
    return fetched + checkpoints + _exported_bytes(model, run)


def _exported_bytes(model: ModelReport, run: TrainConfig) -> float:
    """Bytes of the artifacts before they are published; GGUF is converted from a whole model."""
    gguf = GGUF * model.parameters if OutputFormat.GGUF in run.formats else 0.0
    whole = run.adapter is None or gguf or OutputFormat.MERGED in run.formats
    return gguf + (HALF * model.parameters if whole else HALF * trained_parameters(model, run))


def _further_models(run: TrainConfig) -> Iterable[str]:
    """Reward models and a teacher; their sizes are unknown, so each counts as one of the base model's size."""
    distillation = run.method.distillation
    if distillation and distillation.teacher.uri:
        yield distillation.teacher.uri
    yield from (reward.model.uri for reward in run.method.rewards if reward.model)


def _weight(model: ModelReport) -> float:
    """Bytes of a weight as it is loaded: 16 bits, or what its quantization takes."""
    return HALF if model.quantization is None else QUANTIZED.get(model.quantization, 1.0)


def _is_fetched(uri: str, cached: bool) -> bool:
    """True if what the URI names lies on the pod's own disk."""
    scheme = parse_uri(uri).scheme
    return scheme not in MOUNTED and not (cached and scheme is Scheme.HF)


def _requests(cores: int, memory: float, disk: float) -> dict[str, str]:
    """Requests as Kubernetes writes them, in whole gibibytes; disk only where it is needed."""
    requests = {CPU: str(cores), MEMORY: f"{ceil(memory / GIB)}Gi"}
    return requests | ({DISK: f"{ceil((disk + KERNELS) / GIB)}Gi"} if disk else {})
