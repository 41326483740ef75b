"""Estimated duration and cost of a training before it begins: an order of magnitude."""

from dataclasses import dataclass

from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import AdapterType

from .gpus import Product

#: Multiplications and additions for each weight and token: 2 forward, 4 backward (Kaplan et al. 2020,
#: arXiv:2001.08361, section 2.1). Frozen weights need no gradient of their own: 2 forward, 2 backward. Checkpointing
#: goes forward once more.
FORWARD, BACKWARD, BACKWARD_FROZEN = 2, 4, 2

#: Share of the peak that training reaches. torchtune's Llama 3.2 3B on an A100 with packing makes 7,075 tokens a
#: second, 6 * 3.2e9 * 7,075 / 312e12 = 0.44; adapters multiply small matrices too, and 4-bit weights are unpacked.
UTILIZATION = 0.4
UTILIZATION_ADAPTER = 0.33
UTILIZATION_QUANTIZED = 0.25
#: Tokens a second and sequence that generation makes are bound by reading the weights: this share of the peak is left.
UTILIZATION_GENERATION = 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """Amount of work of a training.

    Attributes:
        parameters: number of parameters of the base model.
        rows: training rows.
        row_tokens: mean tokens of a row, whatever ``maxLength`` is.
        adapter: None if all weights are trained.
        batch_size: rows of an optimizer step, or packed sequences.
        max_steps: maximum number of steps, if lower than that of all epochs.
    """

    parameters: int
    rows: int
    row_tokens: float
    method: Method
    adapter: AdapterType | None
    epochs: int
    batch_size: int
    max_steps: int | None = None
    activation_checkpointing: bool = False
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Duration:
    """Duration of the training, and GPU time of all GPUs together, in seconds."""

    seconds: float
    gpu_seconds: float

    def cost(self, price_per_gpu_hour: float) -> float:
        """Cost of the GPUs."""
        return self.gpu_seconds / 3600 * price_per_gpu_hour


def work_duration(work: Work, gpu: Product) -> Duration:
    """Duration of the whole training on GPUs of this product."""
    peak = gpu.flops * work.devices
    seconds = work_tokens(work) * work.parameters * _operations(work) / (peak * _utilization(work))
    seconds += _generated(work) * work.parameters * FORWARD / (peak * UTILIZATION_GENERATION)
    return Duration(seconds, seconds * work.devices)


def work_tokens(work: Work) -> float:
    """Tokens that go through the model in the whole of training, without what ``maxLength`` cuts off."""
    method = work.method
    mean = min(work.row_tokens, method.max_length)
    online = method.grpo or method.rloo
    answers = online.generations if online else 1
    if online:
        mean = min(mean + online.max_completion_length, online.max_length)
    whole = work.rows * work.epochs * answers * mean
    if work.max_steps is None:
        return whole
    per_row = method.max_length if getattr(method.member, "packing", False) else mean
    return min(whole, work.max_steps * work.batch_size * per_row)


def _operations(work: Work) -> int:
    backward = BACKWARD if work.adapter is None else BACKWARD_FROZEN
    again = FORWARD if work.activation_checkpointing else 0
    reference = FORWARD if work.method.key in {"dpo", "kto", "distillation"} else 0
    return FORWARD + backward + again + reference


def _utilization(work: Work) -> float:
    if work.adapter is None:
        return UTILIZATION
    return UTILIZATION_QUANTIZED if work.adapter is AdapterType.QLORA else UTILIZATION_ADAPTER


def _generated(work: Work) -> float:
    """Tokens that are generated to be learned from."""
    method = work.method
    member = method.grpo or method.rloo or method.distillation
    if member is None:
        return 0.0
    answers = getattr(member, "generations", 1) * member.max_completion_length
    rows: float = work.rows * work.epochs
    if work.max_steps is not None:
        rows = min(rows, work.max_steps * work.batch_size)
    return rows * answers
