"""How much memory of one GPU a training takes, from the model's sizes and the resolved run.

A step has moments, and the fullest counts: the output layer's backward pass, the backward pass of a block, the
optimizer's step, and of online methods the generation of answers. Each is the sum of parts that follow from the
sources of the trainer; constants that are measured, not derived, are named in capitals below.

Sources: mixed precision and ZeRO: Rajbhandari et al. 2020 (arXiv:1910.02054, section 3) and DeepSpeed's
``estimate_zero{2,3}_model_states_mem_needs``; NormalFloat: Dettmers et al. 2023 (arXiv:2305.14314, section 3);
activations: ``activations``; the fused output layer: TRL 1.16's ``kernels/chunked_logprob.py``.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

from tunesmith_contract.methods import DistillationMethod, GRPOMethod, RLOOMethod
from tunesmith_contract.report import Linear, ModelReport, ModelShape
from tunesmith_contract.run_config import Adapter, AdapterType, Offload, Parallelism, TrainConfig

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

#: CUDA's context, cuBLAS's workspace and loaded kernels: 0.4 to 0.6 GiB on A100 and H100.
CONTEXT = 0.55 * 2**30
#: NCCL's buffers, where several GPUs train.
COMMUNICATION = 0.5 * 2**30
#: What PyTorch's allocator holds beyond what is asked of it, as a share of that: 3 to 10 % are published, and 3 % agree
#: best with the table of ``docs/memory.md``.
FRAGMENTS = 0.03

#: Bytes of a weight in 4-bit NormalFloat: a half, and a float32 for 64 weights; doubly quantised, a byte for 64.
NORMAL_FLOAT = 0.5 + 4 / 64
NORMAL_FLOAT_DOUBLE = 0.5 + 1 / 64 + 4 / (64 * 256)

#: Bytes of a weight in checkpoints that are quantised already; an unknown method counts as 8 bits.
QUANTIZED = {"gptq": 0.53, "awq": 0.53, "bitsandbytes": 0.53, "mxfp4": 0.53, "fp8": 1.0}

#: TRL's fused output layer works on tiles of so many tokens and vocabulary entries, however small the vocabulary.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
#: Without it, bytes of a logit: in two bytes, its log-softmax in four, that one's gradient in four and again in two.
WHOLE_LOGITS = 12
#: As transformers had it until 2024: in two bytes, in four, shifted in four, log-softmax in four, its gradient in four.
WHOLE_LOGITS_2024 = 18

#: Elements that DeepSpeed reduces or fetches at once, as the trainer sets it; with overlap there are two buffers.
BUCKET = 50_000_000
#: Weights that ZeRO-3 may hold whole at a time: two blocks, the one at work and the one fetched for what is next.
LIVE_BLOCKS = 2

#: Architectures whose norms, rotary embeddings and activations Liger 0.8 replaces.
LIGER = (
    "Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Gemma", "Phi3", "Granite", "Olmo2", "Olmo3", "Glm4", "Smollm3",
    "SmolLM3",
)  # fmt: skip

_PAIRED = frozenset({"dpo", "reward"})
_REFERENCED = frozenset({"dpo", "kto"})


@dataclass(frozen=True, slots=True)
class Setup:
    """What one GPU does in a micro step, as far as memory depends on it.

    Attributes:
        sequences, length: rows that go through the model at once, and tokens of each.
        weight: bytes of a weight that is not quantised.
        normal_float: bytes of a weight of a linear layer in 4 bits; None: not quantised.
        adapter: what is trained beside the weights; None: all weights are.
        adapter_weight: bytes of an adapter's weight.
        moment: bytes of each of Adam's two moments; None: those of the weight that is trained.
        accumulates: gradients of earlier micro steps are held already.
        checkpointing: blocks' activations are computed again.
        whole_logits: bytes of a logit where all are made at once; 0: in tiles.
        has_head: there are logits at all, not a single number.
        liger, masked: as in ``Style``.
        parallelism, offload, devices: how several GPUs share the work.
        references: further models of the base's size, frozen.
        answers, answer_length: rows generated at once, and their tokens with the prompt's.
    """

    sequences: int
    length: int
    weight: int = COMPUTE
    normal_float: float | None = None
    adapter: Adapter | None = None
    adapter_weight: int = FLOAT
    moment: int | None = None
    accumulates: bool = True
    checkpointing: bool = False
    whole_logits: int = 0
    has_head: bool = True
    liger: bool = False
    masked: bool = False
    parallelism: Parallelism = Parallelism.DDP
    offload: Offload = Offload.NONE
    devices: int = 1
    references: int = 0
    answers: int = 0
    answer_length: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of a micro step."""
        return self.sequences * self.length

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed shares the work."""
        return self.parallelism is not Parallelism.DDP


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU at the fullest moment, by what takes them."""

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
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.parts().values())

    @property
    def allocated(self) -> float:
        """What PyTorch's allocator is asked for (``torch.cuda.max_memory_allocated``): all but the overhead."""
        return self.total - self.overhead

    def plus(self, **parts: float) -> Self:
        """With more in some parts."""
        return replace(self, **{name: getattr(self, name) + more for name, more in parts.items()})


def estimate(model: ModelReport, run: TrainConfig, longest_row: int | None = None) -> Memory | None:
    """What a run takes of each GPU; None where prepare could not tell the model's sizes.

    Args:
        longest_row: tokens of the longest row, where rows are not packed; None: as long as ``maxLength`` allows.
    """
    if model.shape is None or not model.shape.layers:
        return None
    return estimate_setup(model, setup_of(model, run, longest_row))


def setup_of(model: ModelReport, run: TrainConfig, longest_row: int | None = None) -> Setup:
    """What the trainer makes of a resolved run on GPUs."""
    numbers, method, adapter = run.hyperparameters, run.method, run.adapter
    devices = run.nodes * max(1, run.gpus_per_node)
    packed = getattr(method.member, "packing", False)
    length = method.max_length if packed or longest_row is None else min(method.max_length, longest_row)
    online = method.grpo or method.rloo or method.distillation
    length = _online_length(online) if online else length
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
        checkpointing=run.activation_checkpointing,
        has_head=method.reward is None,
        liger=model.architecture.startswith(LIGER),
        masked=packed or micro > 1 or method.key not in {"sft", "pretraining"},
        parallelism=run.parallelism,
        offload=run.offload,
        devices=devices,
        references=_references(run),
        answers=micro * steps if online else 0,
        answer_length=length if online else 0,
    )


def estimate_setup(model: ModelReport, setup: Setup) -> Memory:
    """The fullest moment of a step, with CUDA's own part."""
    assert model.shape is not None
    step = _Step(model, model.shape, setup)
    fullest = max(step.moments(), key=lambda moment: moment.total)
    shared = COMMUNICATION if setup.devices > 1 else 0
    return fullest.plus(overhead=CONTEXT + shared + FRAGMENTS * fullest.total)


def adapter_parameters(shape: ModelShape, adapter: Adapter) -> int:
    """Numbers of an adapter: two matrices for each layer, and for DoRA a magnitude for each output."""
    layers = targeted(shape, adapter)
    experts = shape.experts if _is_all(adapter) else ()
    low_rank = adapter.rank * sum((each.inputs + each.outputs) * each.layers for each in (*layers, *experts))
    magnitudes = sum(each.outputs * each.layers for each in layers)
    return low_rank + (magnitudes if adapter.type is AdapterType.DORA else 0)


def targeted(shape: ModelShape, adapter: Adapter) -> tuple[Linear, ...]:
    """The linear layers that get an adapter, by the end of their name."""
    if _is_all(adapter):
        return shape.linears
    names = {name.rpartition(".")[2] for name in adapter.target_modules}
    return tuple(each for each in shape.linears if each.name in names)


def weight_bytes(model: ModelReport, setup: Setup) -> float:
    """All weights of the base model, in the types they are held in; norms, embeddings and experts stay unquantised."""
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


def _online_length(online: GRPOMethod | RLOOMethod | DistillationMethod) -> int:
    """Prompt and answer together: a prompt is cut so that both fit into ``maxLength``, where the answer leaves room."""
    return max(online.max_length, online.max_completion_length + 8)


def _references(run: TrainConfig) -> int:
    """Frozen models beside the one that is trained.

    With an adapter, the reference is the base itself with the adapter switched off. A teacher's or a reward model's
    size is not known: each counts as one of the base's size.
    """
    method = run.method
    count = sum(1 for reward in method.rewards if reward.model is not None)
    if method.distillation and method.distillation.teacher.uri:
        count += 1
    online = method.grpo or method.rloo
    refers = method.key in _REFERENCED or (online is not None and online.beta > 0)
    return count + (1 if refers and run.adapter is None else 0)


class _Step:
    """One micro step of one GPU, and the optimizer's step after it."""

    def __init__(self, model: ModelReport, shape: ModelShape, setup: Setup) -> None:
        self.model, self.shape, self.setup = model, shape, setup
        adapter = setup.adapter
        self.extra = adapter_parameters(shape, adapter) if adapter else 0
        self.trained = self.extra if adapter else model.parameters
        self.style = self._style()
        self.held = self._held()

    def moments(self) -> tuple[Memory, ...]:
        """What is held at each of the moments that can be the fullest."""
        earlier = self._gradients() if self.setup.accumulates else 0.0
        kept = self._kept()
        head, head_gradient = self._head()
        block = self._block()
        # The first blocks of the backward pass find all activations kept, the last ones all gradients made.
        first = self.held.plus(activations=kept + block, gradients=earlier + head_gradient)
        last = self.held.plus(activations=kept / self.shape.layers + block, gradients=self._gradients())
        moments = [
            self.held.plus(activations=kept, logits=head, gradients=earlier),
            first,
            last,
            self._update(),
        ]
        if self.setup.answers:
            moments.append(self._generation())
        return tuple(moments)

    def _style(self) -> Style:
        setup, adapter = self.setup, self.setup.adapter
        held = setup.adapter_weight if adapter else setup.weight
        return Style(
            residual=setup.weight,
            trains_weights=adapter is None,
            targets=targeted(self.shape, adapter) if adapter else (),
            rank=adapter.rank if adapter else 0,
            casts=held > COMPUTE and not setup.deepspeed,
            dropout=bool(adapter and adapter.dropout),
            dora=adapter is not None and adapter.type is AdapterType.DORA,
            liger=setup.liger,
            masked=setup.masked,
        )

    def _held(self) -> Memory:
        """What is there all the time."""
        setup = self.setup
        weights = weight_bytes(self.model, setup)
        reference = weights * setup.references if setup.normal_float is None else 0.0
        if setup.references and setup.normal_float is not None:
            reference = COMPUTE * self.model.parameters * setup.references
        if setup.parallelism is Parallelism.ZERO3:
            shard = 0.0 if setup.offload is Offload.ALL else weights / setup.devices
            weights = shard + self._live()
            reference /= setup.devices
        return Memory(
            weights=weights,
            adapter=float(setup.adapter_weight * self.extra),
            optimizer=self._optimizer(),
            reference=reference,
        )

    def _live(self) -> float:
        """What ZeRO-3 has fetched of the weights at a time: blocks, or the embedding."""
        matrix = self.shape.vocabulary_size * self.shape.hidden_size
        rest = max(0, self.model.parameters - matrix * (1 if self.shape.tied_embeddings else 2))
        return float(COMPUTE * (max(LIVE_BLOCKS * rest / self.shape.layers, matrix) + BUCKET))

    def _optimizer(self) -> float:
        """Adam's moments; with DeepSpeed in float32, as the copy of the weights is, divided among the GPUs."""
        setup = self.setup
        if not setup.deepspeed:
            held = setup.adapter_weight if setup.adapter else setup.weight
            return 2.0 * (held if setup.moment is None else setup.moment) * self.trained
        if setup.offload is not Offload.NONE:
            return 0.0
        return 3.0 * FLOAT * self.trained / setup.devices

    def _gradients(self) -> float:
        """Gradients of all that is trained, once they are made; DDP has them in its buckets a second time."""
        setup = self.setup
        held = setup.adapter_weight if setup.adapter else setup.weight
        if not setup.deepspeed:
            return float(held * self.trained * (2 if setup.devices > 1 else 1))
        divided = 0.0 if setup.offload is not Offload.NONE else COMPUTE * self.trained / setup.devices
        return divided + 2.0 * COMPUTE * min(BUCKET, self.trained)

    def _update(self) -> Memory:
        """The optimizer's step: DeepSpeed turns its part of the gradients to float32 first."""
        setup = self.setup
        floats = FLOAT * self.trained / setup.devices if setup.deepspeed else 0.0
        if setup.offload is not Offload.NONE:
            floats = 0.0
        return self.held.plus(gradients=self._gradients() + floats)

    def _kept(self) -> float:
        """Activations that wait for the backward pass."""
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
        """What one block takes while it goes backward."""
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
        """A layer's 4-bit weights are turned back into whole ones to be multiplied: the largest layer's."""
        if self.setup.normal_float is None:
            return 0.0
        largest = max((each.inputs * each.outputs for each in self.shape.linears), default=0)
        return float(COMPUTE * largest)

    def _merged_experts(self) -> float:
        """PEFT adds an adapter on fused experts to a copy of them, which the backward pass needs."""
        adapter = self.setup.adapter
        if adapter is None or not _is_all(adapter) or not self.shape.experts:
            return 0.0
        embeddings = self.shape.vocabulary_size * self.shape.hidden_size
        outside = linear_parameters(self.shape.linears) + embeddings * (
            1 if self.shape.tied_embeddings else 2
        )
        return float(COMPUTE * max(0, self.model.parameters - outside))

    def _head(self) -> tuple[float, float]:
        """The output layer: what it takes while at work, and the gradient of its weights that stays."""
        setup, shape = self.setup, self.shape
        if not setup.has_head:
            return 0.0, 0.0
        matrix = shape.vocabulary_size * shape.hidden_size
        # A gradient of the output layer is made whole on each GPU, in float32, and then in the weights' type.
        copies = FLOAT if setup.weight == FLOAT else FLOAT + setup.weight
        trained = float(copies * matrix) if setup.adapter is None else 0.0
        stays = float(setup.weight * matrix) if setup.adapter is None else 0.0
        if setup.whole_logits:
            return setup.whole_logits * shape.vocabulary_size * setup.tokens + stays, stays
        tile = COMPUTE * min(setup.tokens, TILE_TOKENS) * TILE_VOCABULARY
        hidden = (FLOAT + COMPUTE) * shape.hidden_size * setup.tokens
        return tile + hidden + trained, stays

    def _generation(self) -> Memory:
        """Keys and values of all answers that are made at once, and the last token's logits in float32."""
        setup, shape = self.setup, self.shape
        cached = 2 * COMPUTE * shape.layers * shape.key_value_heads * shape.head_size
        tokens = setup.answers * setup.answer_length
        logits = (COMPUTE + 2 * FLOAT) * shape.vocabulary_size * setup.answers
        return self.held.plus(activations=float(cached * tokens), logits=float(logits))
