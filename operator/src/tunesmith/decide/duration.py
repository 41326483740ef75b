"""How long a training will take and what it will cost, before it begins: an order of magnitude, not a promise."""

from dataclasses import dataclass

from tunesmith_contract.report import DatasetReport, ModelReport
from tunesmith_contract.run_config import AdapterType, TrainConfig

from .gpus import Product

#: Multiplications and additions for each weight and token: 2 forward, 4 backward (Kaplan et al. 2020,
#: arXiv:2001.08361, section 2.1). Frozen weights need no gradient of their own: 2 forward, 2 backward. Checkpointing
#: goes forward once more.
FORWARD, BACKWARD, BACKWARD_FROZEN = 2, 4, 2

#: Share of the peak that training reaches. torchtune's Llama 3.2 3B on an A100 with packing makes 7,075 tokens a
#: second, 6 * 3.2e9 * 7,075 / 312e12 = 0.44; adapters multiply small matrices too, and 4-bit weights are unpacked.
UTILISATION = 0.4
UTILISATION_ADAPTER = 0.33
UTILISATION_QUANTIZED = 0.25
#: Tokens a second and sequence that generation makes are bound by reading the weights: this share of the peak is left.
UTILISATION_GENERATION = 0.02


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of the whole, and of all GPUs together."""

    seconds: float
    gpu_seconds: float

    def cost(self, price_per_gpu_hour: float) -> float:
        """What the GPUs will cost."""
        return self.gpu_seconds / 3600 * price_per_gpu_hour


def estimate_duration(model: ModelReport, dataset: DatasetReport, run: TrainConfig, gpu: Product) -> Duration:
    """How long the whole of training takes on GPUs of this product."""
    devices = run.nodes * max(1, run.gpus_per_node)
    tokens = trained_tokens(dataset, run)
    seconds = tokens * model.parameters * _operations(run) / (gpu.flops * _utilisation(run) * devices)
    seconds += (
        _generated(dataset, run) * model.parameters * FORWARD / (gpu.flops * UTILISATION_GENERATION * devices)
    )
    return Duration(seconds, seconds * devices)


def trained_tokens(dataset: DatasetReport, run: TrainConfig) -> float:
    """Tokens that go through the model in the whole of training, without what ``maxLength`` cuts off."""
    rows = dataset.train_rows + dataset.validation_rows
    mean = min(dataset.tokens.total / max(1, rows), run.method.max_length)
    online = run.method.grpo or run.method.rloo
    answers = online.generations if online else 1
    if online:
        mean = min(mean + online.max_completion_length, online.max_length)
    whole = dataset.train_rows * run.hyperparameters.epochs * answers * mean
    if run.hyperparameters.max_steps is None:
        return whole
    per_row = run.method.max_length if getattr(run.method.member, "packing", False) else mean
    return min(whole, run.hyperparameters.max_steps * run.hyperparameters.batch_size * per_row)


def _operations(run: TrainConfig) -> int:
    backward = BACKWARD if run.adapter is None else BACKWARD_FROZEN
    again = FORWARD if run.activation_checkpointing else 0
    reference = FORWARD if run.method.key in {"dpo", "kto", "distillation"} else 0
    return FORWARD + backward + again + reference


def _utilisation(run: TrainConfig) -> float:
    if run.adapter is None:
        return UTILISATION
    return UTILISATION_QUANTIZED if run.adapter.type is AdapterType.QLORA else UTILISATION_ADAPTER


def _generated(dataset: DatasetReport, run: TrainConfig) -> float:
    """Tokens that are generated to be learned from."""
    method = run.method
    member = method.grpo or method.rloo or method.distillation
    if member is None:
        return 0.0
    answers = getattr(member, "generations", 1) * member.max_completion_length
    rows: float = dataset.train_rows * run.hyperparameters.epochs
    if run.hyperparameters.max_steps is not None:
        rows = min(rows, run.hyperparameters.max_steps * run.hyperparameters.batch_size)
    return rows * answers
