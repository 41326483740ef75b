"""Published memory measurements of others, with their settings."""

from dataclasses import dataclass, replace
from typing import Literal

from tunesmith.decide.fit.memory import FRAGMENTS, NORMAL_FLOAT_DOUBLE, Memory, Setup, TrainingStep
from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import Adapter, AdapterType
from tunesmith_docs.gpu_table import describe_model

GIB = 2**30
GB = 10**9

#: Bytes of a logit in a trainer that computes all of them at once: in two bytes, log-softmax in four, its gradient in
#: four and again in two.
WHOLE_LOGITS = 12
#: The same in transformers until 2024: in two bytes, in four, shifted in four, log-softmax in four, gradient in four.
WHOLE_LOGITS_2024 = 18

#: Meaning of a published number: memory that PyTorch allocated, that its allocator reserved, or all that the GPU used.
Counted = Literal["allocated", "reserved", "used"]


LLAMA_3_2_1B = describe_model(2048, 8192, 16, 32, 8, 128256, tied=True)
LLAMA_3_2_3B = describe_model(3072, 8192, 28, 24, 8, 128256, tied=True, head_size=128)
LLAMA_3_1_8B = describe_model(4096, 14336, 32, 32, 8, 128256)
LLAMA_3_3_70B = describe_model(8192, 28672, 80, 64, 8, 128256)
LLAMA_2_7B = describe_model(4096, 11008, 32, 32, 32, 32000)


@dataclass(frozen=True, slots=True)
class OtherSetup(Setup):
    """A step of another trainer.

    Attributes:
        whole_logits: bytes of a logit if all of them are computed at once; 0: in tiles.
        moment: bytes of each of Adam's two moments; None: those of the trained weight.
    """

    whole_logits: int = 0
    moment: int | None = None


class OtherStep(TrainingStep):
    """Memory of a step of another trainer."""

    setup: OtherSetup

    def optimizer_bytes(self) -> float:
        """Adam's moments in the type that the other trainer stores them in."""
        if self.setup.moment is None:
            return super().optimizer_bytes()
        return 2.0 * self.setup.moment * self.trained

    def logits_bytes(self) -> float:
        """The logits of all tokens and their temporary tensors, where they are computed at once."""
        if not self.setup.whole_logits:
            return super().logits_bytes()
        gradient = self.setup.weight * self.head_parameters if self.setup.adapter is None else 0
        return float(self.setup.whole_logits * self.shape.vocabulary_size * self.setup.tokens + gradient)


def allocated(memory: Memory) -> float:
    """Bytes that PyTorch allocates at the peak (``torch.cuda.max_memory_allocated``): all but the overhead."""
    return memory.total - memory.overhead


@dataclass(frozen=True)
class Published:
    """A measurement of others.

    Attributes:
        bytes: what they measured.
        counted: what that is.
        doubt: why the number can't be compared, where it can't.
    """

    source: str
    name: str
    model: ModelReport
    setup: OtherSetup
    bytes: float
    counted: Counted
    doubt: str = ""

    @property
    def estimate(self) -> float:
        """Our number of the same thing."""
        assert self.model.shape is not None
        memory = OtherStep(self.model, self.model.shape, self.setup).peak()
        match self.counted:
            case "allocated":
                return allocated(memory)
            case "reserved":
                return (1 + FRAGMENTS) * allocated(memory)
            case "used":
                return memory.total

    @property
    def error(self) -> float:
        """Relative; above 0: we say more."""
        return self.estimate / self.bytes - 1


def _lora(rank: int, *targets: str) -> Adapter:
    return Adapter(rank=rank, target_modules=targets or ("all-linear",))


_TUNE = OtherSetup(2, 4096, accumulates=False, masked=True, whole_logits=WHOLE_LOGITS)
_TUNE_CHUNKED = replace(_TUNE, whole_logits=0, checkpointing=True)
_COMPILED = "compiled: activations are fused and recomputed as the compiler sees fit"

_PEFT = OtherSetup(4, 768, accumulates=False, masked=True, whole_logits=WHOLE_LOGITS)

_PEFT_LORA = replace(_PEFT, adapter=_lora(32, "q_proj", "v_proj"))
_PEFT_RSLORA = replace(_PEFT, adapter=_lora(64, "q_proj", "v_proj"))

_FACTORY = OtherSetup(
    4,
    1024,
    adapter=_lora(8, "q_proj", "v_proj"),
    checkpointing=True,
    whole_logits=WHOLE_LOGITS_2024,
    masked=True,
)


def _quantized(setup: OtherSetup) -> OtherSetup:
    return replace(setup, normal_float=NORMAL_FLOAT_DOUBLE, adapter_weight=2)


def _longest(model: ModelReport, name: str, gigabytes: int, length: int) -> Published:
    """The longest row that trained on a GPU of so many GB with Hugging Face's trainer: it fills the GPU.

    PEFT's ``prepare_model_for_kbit_training`` turns all that is not in 4 bits into float32.
    """
    setup = OtherSetup(
        1,
        length,
        weight=4,
        normal_float=NORMAL_FLOAT_DOUBLE,
        adapter=_lora(32).model_copy(update={"type": AdapterType.QLORA}),
        checkpointing=True,
        whole_logits=WHOLE_LOGITS_2024,
    )
    name = f"{name}, 4 bits, r32: {length:,} tokens fill {gigabytes} GB"
    return Published("Unsloth", name, model, setup, gigabytes * GIB, "used")


def _tune(name: str, setup: OtherSetup, gibibytes: float, doubt: str = "") -> Published:
    return Published("torchtune", name, LLAMA_3_2_3B, setup, gibibytes * GIB, "allocated", doubt)


PUBLISHED = (
    _tune("all weights, packed", _TUNE, 60.0),
    _tune("and compiled", _TUNE, 51.0, _COMPILED),
    _tune("and the loss in chunks", replace(_TUNE, whole_logits=0), 42.9, _COMPILED),
    _tune("and checkpointing", _TUNE_CHUNKED, 24.9),
    _tune("and 8-bit Adam", replace(_TUNE_CHUNKED, moment=1), 17.6),
    _tune("LoRA", replace(_TUNE_CHUNKED, adapter=_lora(8), adapter_weight=2), 8.5),
    _tune("QLoRA", replace(_quantized(_TUNE_CHUNKED), adapter=_lora(8)), 4.6),
    Published("PEFT", "all weights", LLAMA_3_2_3B, _PEFT, 36.2 * GIB, "reserved"),
    Published("PEFT", "LoRA r32", LLAMA_3_2_3B, _PEFT_LORA, 20.8 * GIB, "reserved"),
    Published("PEFT", "rsLoRA r64", LLAMA_3_2_3B, _PEFT_RSLORA, 21.0 * GIB, "reserved"),
    Published("LLaMA-Factory", "LoRA r8, 16 bits", LLAMA_2_7B, _FACTORY, 18 * GB, "used"),
    Published("LLaMA-Factory", "LoRA r8, 4 bits", LLAMA_2_7B, _quantized(_FACTORY), 9 * GB, "used"),
    _longest(LLAMA_3_1_8B, "8B", 12, 932),
    _longest(LLAMA_3_1_8B, "8B", 16, 2551),
    _longest(LLAMA_3_1_8B, "8B", 24, 5789),
    _longest(LLAMA_3_1_8B, "8B", 40, 12264),
    _longest(LLAMA_3_1_8B, "8B", 48, 15502),
    _longest(LLAMA_3_1_8B, "8B", 80, 28454),
    _longest(LLAMA_3_3_70B, "70B", 80, 6916),
)
