"""Estimate of the GPU memory of a training run, from the sizes of the model and the resolved settings.

The peak of a step counts: the backward pass of the output layer, the backward pass of a block, the update of the
optimizer, or the generation of answers with online methods. Each is a sum of parts that follow from the source code of
the trainer; constants that are measured and not derived are named in capitals below.

Sources: mixed precision and ZeRO: Rajbhandari et al. 2020 (arXiv:1910.02054, section 3) and DeepSpeed's
``estimate_zero{2,3}_model_states_mem_needs``; NormalFloat: Dettmers et al. 2023 (arXiv:2305.14314, section 3);
activations: ``activations``; the fused output layer: TRL 1.16's ``kernels/chunked_logprob.py``.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

from tunesmith_contract.report import Linear, ModelReport, ModelShape
from tunesmith_contract.run_config import Adapter, AdapterType, Offload, Parallelism, TrainConfig
from tunesmith_contract.shared_rules.attention import packs_without_mask
from tunesmith_contract.shared_rules.defaults import accumulates_in_float32

from .activations import (
    COMPUTE,
    FLOAT,
    Style,
    boundary_bytes,
    cast_bytes,
    linear_parameters,
    magnitude_bytes,
    mask_bytes,
    passing_bytes,
    saved_bytes,
)

#: CUDA context, cuBLAS workspace and loaded kernels: 0.4 to 0.6 GiB on A100 and H100.
CONTEXT = 0.55 * 2**30
#: Buffers of NCCL, if several GPUs train.
COMMUNICATION = 0.5 * 2**30
#: Memory that PyTorch's allocator reserves beyond its allocations, as a share of them: 3 to 10 % are published, and 3 %
#: agree best with the table of ``docs/memory.md``.
FRAGMENTS = 0.03

#: Bytes of a weight in 4-bit NormalFloat: a half, and a float32 for 64 weights; doubly quantized, a byte for 64.
NORMAL_FLOAT = 0.5 + 4 / 64
NORMAL_FLOAT_DOUBLE = 0.5 + 1 / 64 + 4 / (64 * 256)

#: Bytes of a weight in checkpoints that are quantized already; an unknown method counts as 8 bits.
QUANTIZED = {"gptq": 0.53, "awq": 0.53, "bitsandbytes": 0.53, "mxfp4": 0.53, "fp8": 1.0}

#: Tile of TRL's fused output layer, in tokens and vocabulary entries, whatever the size of the vocabulary.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768

#: Elements that DeepSpeed reduces or fetches at once, as the trainer configures it; overlap takes two buffers.
BUCKET = 50_000_000
#: Blocks whose weights ZeRO-3 holds undivided at a time: the one in use and the one prefetched.
LIVE_BLOCKS = 2

_PAIRED = frozenset({"dpo", "reward"})
_REFERENCED = frozenset({"dpo", "kto"})


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings of one micro step on one GPU that determine its memory.

    Attributes:
        sequences, length: rows processed at once, and tokens of each.
        weight: bytes of a weight that is not quantized.
        normal_float: bytes of a 4-bit weight of a linear layer; None: not quantized.
        adapter: the adapter that is trained; None: all weights are trained.
        adapter_weight: bytes of an adapter's weight.
        accumulates: gradients of earlier micro steps are held already.
        float_gradients: DeepSpeed adds them up in float32.
        checkpointing: activations of blocks are recomputed.
        has_head: the model computes logits and not a single score.
        masked: as in ``Style``.
        parallelism, offload, devices: distribution over several GPUs.
        references: additional frozen models of the size of the base model.
        answers, answer_length: answers generated at once, and tokens of each with its prompt.
    """

    sequences: int
    length: int
    weight: int = COMPUTE
    normal_float: float | None = None
    adapter: Adapter | None = None
    adapter_weight: int = FLOAT
    accumulates: bool = True
    float_gradients: bool = False
    checkpointing: bool = False
    has_head: bool = True
    masked: bool = False
    parallelism: Parallelism = Parallelism.DDP
    offload: Offload = Offload.NONE
    devices: int = 1
    references: int = 0
    answers: int = 0
    answer_length: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the micro step."""
        return self.sequences * self.length

    @property
    def deepspeed(self) -> bool:
        """True if DeepSpeed distributes the work."""
        return self.parallelism is not Parallelism.DDP


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of one GPU in bytes, by purpose."""

    weights: float = 0.0
    adapter: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    reference: float = 0.0
    overhead: float = 0.0

    def parts(self) -> dict[str, float]:
        """Bytes by part."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self.parts().values())

    def plus(self, **parts: float) -> Self:
        """Memory with some parts increased."""
        return replace(self, **{name: getattr(self, name) + more for name, more in parts.items()})


def estimate(model: ModelReport, run: TrainConfig, longest_row: int | None = None) -> Memory | None:
    """Memory that a run takes on each GPU, or None if the sizes of the model are unknown.

    Args:
        longest_row: tokens of the longest row, if rows are not packed; None: ``maxLength``.
    """
    if model.shape is None or not model.shape.layers:
        return None
    return estimate_setup(model, setup_of(model, run, longest_row))


def setup_of(model: ModelReport, run: TrainConfig, longest_row: int | None = None) -> Setup:
    """Settings of a micro step, as the trainer derives them from a resolved run."""
    numbers, method, adapter = run.hyperparameters, run.method, run.adapter
    devices = run.nodes * max(1, run.gpus_per_node)
    packed = getattr(method.member, "packing", False)
    length = method.max_length if packed or longest_row is None else min(method.max_length, longest_row)
    online = method.grpo or method.rloo or method.distillation
    if online:
        # The prompt is cut so that it and the answer fit into ``maxLength``, if the answer leaves room.
        length = max(online.max_length, online.max_completion_length + 8)
    quantized = adapter is not None and adapter.type is AdapterType.QLORA
    sharded = run.parallelism is not Parallelism.DDP
    micro = numbers.micro_batch_size
    steps = max(1, numbers.batch_size // (micro * devices))
    return Setup(
        sequences=micro * (2 if method.key in _PAIRED else 1),
        length=length,
        weight=FLOAT if adapter is None and not sharded else COMPUTE,
        normal_float=_normal_float(model, adapter if quantized else None),
        adapter=adapter,
        adapter_weight=COMPUTE if quantized or run.parallelism is Parallelism.ZERO3 else FLOAT,
        accumulates=steps > 1,
        float_gradients=accumulates_in_float32(numbers.batch_size // devices),
        checkpointing=run.activation_checkpointing,
        has_head=method.reward is None,
        masked=_masked(model, run),
        parallelism=run.parallelism,
        offload=run.offload,
        devices=devices,
        references=_references(run),
        answers=micro * steps if online else 0,
        answer_length=length if online else 0,
    )


def estimate_setup(model: ModelReport, setup: Setup) -> Memory:
    """Peak memory of a micro step, including the overhead of CUDA."""
    assert model.shape is not None
    return TrainingStep(model, model.shape, setup).peak()


def adapter_parameters(shape: ModelShape, adapter: Adapter) -> int:
    """Number of parameters of an adapter: two matrices per layer, and for DoRA a magnitude per output."""
    layers = targeted(shape, adapter)
    experts = shape.experts if _is_all(adapter) else ()
    low_rank = adapter.rank * sum(
        (layer.inputs + layer.outputs) * layer.layers for layer in (*layers, *experts)
    )
    magnitudes = sum(layer.outputs * layer.layers for layer in layers)
    return low_rank + (magnitudes if adapter.type is AdapterType.DORA else 0)


def targeted(shape: ModelShape, adapter: Adapter) -> tuple[Linear, ...]:
    """Linear layers that receive the adapter, selected by the end of their names."""
    if _is_all(adapter):
        return shape.linears
    names = {name.rpartition(".")[2] for name in adapter.target_modules}
    return tuple(linear for linear in shape.linears if linear.name in names)


def weight_bytes(model: ModelReport, setup: Setup) -> float:
    """Bytes of all weights of the base model; norms, embeddings and experts are never quantized to 4 bits."""
    assert model.shape is not None
    linear = linear_parameters(model.shape.linears) if setup.normal_float is not None else 0
    return (model.parameters - linear) * setup.weight + linear * (setup.normal_float or 0.0)


def _is_all(adapter: Adapter) -> bool:
    return adapter.target_modules == ("all-linear",)


def _normal_float(model: ModelReport, quantized: Adapter | None) -> float | None:
    if model.quantization is not None:
        return QUANTIZED.get(model.quantization, 1.0)
    if quantized is None:
        return None
    return NORMAL_FLOAT_DOUBLE if quantized.double_quantization else NORMAL_FLOAT


def _masked(model: ModelReport, run: TrainConfig) -> bool:
    """True if rows are kept apart, or without their padding, by a mask: a single row in its length needs none."""
    method = run.method
    if getattr(method.member, "packing", False):
        return not packs_without_mask(model.architecture)
    return run.hyperparameters.micro_batch_size > 1 or method.key not in {"sft", "pretraining"}


def _references(run: TrainConfig) -> int:
    """Number of frozen models besides the one that is trained.

    With an adapter, the reference is the base model itself with the adapter disabled. The size of a teacher or reward
    model is unknown: each counts as one of the size of the base model.
    """
    method = run.method
    count = sum(1 for reward in method.rewards if reward.model is not None)
    if method.distillation and method.distillation.teacher.uri:
        count += 1
    online = method.grpo or method.rloo
    refers = method.key in _REFERENCED or (online is not None and online.beta > 0)
    return count + (1 if refers and run.adapter is None else 0)


class TrainingStep:
    """Memory of one micro step on one GPU, and of the optimizer's update after it."""

    def __init__(self, model: ModelReport, shape: ModelShape, setup: Setup) -> None:
        self.model, self.shape, self.setup = model, shape, setup
        adapter = setup.adapter
        self.extra = adapter_parameters(shape, adapter) if adapter else 0
        self.trained = self.extra if adapter else model.parameters
        self.style = self._style()
        self.constant = self._constant()

    def peak(self) -> Memory:
        """Memory at the peak, including the overhead of CUDA."""
        peak = max(self._candidates(), key=lambda memory: memory.total)
        communication = COMMUNICATION if self.setup.devices > 1 else 0
        return peak.plus(overhead=CONTEXT + communication + FRAGMENTS * peak.total)

    def optimizer_bytes(self) -> float:
        """Adam's moments; with DeepSpeed in float32 with a copy of the weights, divided among the GPUs."""
        setup = self.setup
        if not setup.deepspeed:
            return 2.0 * (setup.adapter_weight if setup.adapter else setup.weight) * self.trained
        if setup.offload is not Offload.NONE:
            return 0.0
        return 3.0 * FLOAT * self.trained / setup.devices

    def logits_bytes(self) -> float:
        """Activations and temporary tensors of the output layer, which TRL computes in tiles."""
        tile = COMPUTE * min(self.setup.tokens, TILE_TOKENS) * TILE_VOCABULARY
        hidden = (FLOAT + COMPUTE) * self.shape.hidden_size * self.setup.tokens
        # A gradient of the output layer is computed whole on each GPU, in float32, and then in the weights' type.
        copies = FLOAT if self.setup.weight == FLOAT else FLOAT + self.setup.weight
        trained = copies * self.head_parameters if self.setup.adapter is None else 0
        return float(tile + hidden + trained)

    @property
    def head_parameters(self) -> int:
        """Number of weights of the output layer."""
        return self.shape.vocabulary_size * self.shape.hidden_size

    def _candidates(self) -> tuple[Memory, ...]:
        """Memory at each time that can be the peak."""
        earlier = self._gradients() if self.setup.accumulates else 0.0
        activations = self._kept_activations()
        trains_head = self.setup.has_head and self.setup.adapter is None
        head = self.logits_bytes() if self.setup.has_head else 0.0
        head_gradient = float(self.setup.weight * self.head_parameters) if trains_head else 0.0
        block = self._block()
        # At the first blocks of the backward pass all activations are kept, at the last ones all gradients exist.
        first = self.constant.plus(activations=activations + block, gradients=earlier + head_gradient)
        last = self.constant.plus(
            activations=activations / self.shape.layers + block, gradients=self._gradients()
        )
        candidates = [
            self.constant.plus(activations=activations, logits=head, gradients=earlier),
            first,
            last,
            self._update(),
        ]
        if self.setup.answers:
            candidates.append(self._generation())
        return tuple(candidates)

    def _style(self) -> Style:
        setup, adapter = self.setup, self.setup.adapter
        trained_weight = setup.adapter_weight if adapter else setup.weight
        return Style(
            residual=setup.weight,
            trains_weights=adapter is None,
            targets=targeted(self.shape, adapter) if adapter else (),
            rank=adapter.rank if adapter else 0,
            casts=trained_weight > COMPUTE and not setup.deepspeed,
            dropout=bool(adapter and adapter.dropout),
            dora=adapter is not None and adapter.type is AdapterType.DORA,
            masked=setup.masked,
        )

    def _constant(self) -> Memory:
        """Memory that is held during the whole step."""
        setup = self.setup
        weights = weight_bytes(self.model, setup)
        reference = weights * setup.references if setup.normal_float is None else 0.0
        if setup.references and setup.normal_float is not None:
            reference = COMPUTE * self.model.parameters * setup.references
        if setup.parallelism is Parallelism.ZERO3:
            shard = 0.0 if setup.offload is Offload.ALL else weights / setup.devices
            weights = shard + self._fetched_weights()
            reference /= setup.devices
        return Memory(
            weights=weights,
            adapter=float(setup.adapter_weight * self.extra),
            optimizer=self.optimizer_bytes(),
            reference=reference,
        )

    def _fetched_weights(self) -> float:
        """Bytes of the weights that ZeRO-3 has fetched at a time: blocks, or the embedding."""
        matrix = self.shape.vocabulary_size * self.shape.hidden_size
        rest = max(0, self.model.parameters - matrix * (1 if self.shape.tied_embeddings else 2))
        return float(COMPUTE * (max(LIVE_BLOCKS * rest / self.shape.layers, matrix) + BUCKET))

    def _gradients(self) -> float:
        """Bytes of all gradients; DDP holds them a second time in its buckets."""
        setup = self.setup
        trained_weight = setup.adapter_weight if setup.adapter else setup.weight
        if not setup.deepspeed:
            return float(trained_weight * self.trained * (2 if setup.devices > 1 else 1))
        gradient = FLOAT if setup.float_gradients else COMPUTE
        divided = 0.0 if setup.offload is not Offload.NONE else gradient * self.trained / setup.devices
        return divided + 2.0 * COMPUTE * min(BUCKET, self.trained)

    def _update(self) -> Memory:
        """Memory during the optimizer's update: DeepSpeed first converts its share of the gradients to float32.

        ZeRO-3 copies them even if they are in float32 already.
        """
        setup = self.setup
        floats = FLOAT * self.trained / setup.devices if setup.deepspeed else 0.0
        used_in_place = setup.float_gradients and setup.parallelism is Parallelism.ZERO2
        if setup.offload is not Offload.NONE or used_in_place:
            floats = 0.0
        return self.constant.plus(gradients=self._gradients() + floats)

    def _kept_activations(self) -> float:
        """Bytes of the activations kept for the backward pass."""
        setup, shape = self.setup, self.shape
        # The last norm's float32 copy and, where the head is trained, its result; those tokens that are learned from.
        head = COMPUTE + FLOAT + (self.style.residual if setup.adapter is None else 0)
        hidden = head * shape.hidden_size
        cast = cast_bytes(self.model, self.style, self.extra)
        # All layers are handed one mask, a byte for each pair of tokens.
        mask = setup.sequences * setup.length**2 if setup.masked else 0
        if setup.checkpointing:
            return boundary_bytes(shape, self.style) * setup.tokens + hidden * setup.tokens + mask
        whole = cast + mask + mask_bytes(shape, self.style, setup.sequences, setup.length)
        whole += magnitude_bytes(self.style) + self._merged_experts()
        return (saved_bytes(self.model, self.style) + hidden) * setup.tokens + whole

    def _block(self) -> float:
        """Bytes that one block takes during its backward pass."""
        setup, shape = self.setup, self.shape
        passing = passing_bytes(shape, self.style) * setup.tokens
        if not setup.checkpointing:
            return passing + self._dequantized()
        again = saved_bytes(self.model, self.style) * setup.tokens
        again += mask_bytes(shape, self.style, setup.sequences, setup.length)
        again += cast_bytes(self.model, self.style, self.extra)
        again += magnitude_bytes(self.style) + self._merged_experts()
        return passing + again / shape.layers + self._dequantized()

    def _dequantized(self) -> float:
        """Bytes of the largest linear layer, whose 4-bit weights are dequantized for the multiplication."""
        if self.setup.normal_float is None:
            return 0.0
        largest = max((linear.inputs * linear.outputs for linear in self.shape.linears), default=0)
        return float(COMPUTE * largest)

    def _merged_experts(self) -> float:
        """Bytes of the copy of fused experts to which PEFT adds their adapter, kept for the backward pass."""
        adapter = self.setup.adapter
        if adapter is None or not _is_all(adapter) or not self.shape.experts:
            return 0.0
        embeddings = self.shape.vocabulary_size * self.shape.hidden_size
        outside = linear_parameters(self.shape.linears) + embeddings * (
            1 if self.shape.tied_embeddings else 2
        )
        return float(COMPUTE * max(0, self.model.parameters - outside))

    def _generation(self) -> Memory:
        """Memory of generation: keys and values of all answers generated at once, and logits of their last tokens."""
        setup, shape = self.setup, self.shape
        cached = 2 * COMPUTE * shape.layers * shape.key_value_heads * shape.head_size
        tokens = setup.answers * setup.answer_length
        logits = (COMPUTE + 2 * FLOAT) * shape.vocabulary_size * setup.answers
        return self.constant.plus(activations=float(cached * tokens), logits=float(logits))
