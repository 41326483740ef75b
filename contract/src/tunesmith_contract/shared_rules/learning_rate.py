"""The peak learning rate where none is written: a product of published rules, within limits."""

from dataclasses import dataclass
from math import sqrt

from tunesmith_contract.run_config import Adapter, AdapterType

#: Rates of full fine-tuning of a model of REFERENCE_WIDTH with REFERENCE_ROWS a step: TRL 1.16's own defaults.
FULL_RATES = {
    "sft": 2e-5,
    "pretraining": 2e-5,
    "dpo": 1e-6,
    "kto": 1e-6,
    "grpo": 1e-6,
    "rloo": 1e-6,
    "reward": 1e-4,
    "distillation": 1e-6,
}

#: Width of the residual stream of models of eight billion parameters.
REFERENCE_WIDTH = 4096
REFERENCE_ROWS = 16
REFERENCE_ALPHA = 32

ADAPTER_FACTOR = 10
SHORT_RUN_FACTOR = 1.5
SHORT_RUN_STEPS = 100
WIDTH_EXPONENT = 0.781

#: Limits of the factors: beyond them the rules are not known to hold.
WIDTH_LIMITS = (0.5, 6.0)
ROWS_LIMITS = (0.5, 1.5)
ALPHA_LIMITS = (0.4, 2.0)

#: Highest rates, with an adapter and without one.
MOST_WITH_ADAPTER, MOST = 2e-3, 2e-4


@dataclass(frozen=True, slots=True)
class TrainingSize:
    """What the learning rate depends on beside method and adapter.

    Attributes:
        width: size of the model's hidden states; None: not known.
        rows_per_step: rows of an optimizer step, or prompts of an online method; packed rows count one by one.
        steps: optimizer steps of the whole training.
    """

    width: int | None
    rows_per_step: float
    steps: int


def choose_learning_rate(method: str, adapter: Adapter | None, size: TrainingSize) -> float:
    """The peak learning rate, with two significant digits.

    TRL's default of the method, which suits all weights of a model of eight billion parameters and 16 rows a step,
    times:

    - (4096 / width) ** 0.781: narrower models learn best at higher rates. The exponent is that of Llama models in
      Thinking Machines' tinker-cookbook (2025), which fits LoRA's best rates as
      5e-5 x 10 x (2000 / width) ** 0.781.
    - sqrt(rows / 16): Adam's rate grows with the square root of the batch (Malladi et al. 2022, arXiv:2205.10286).
    - with an adapter 10, in runs of less than 100 steps 15 ("LoRA Without Regret", Schulman et al., Thinking Machines,
      2025), and sqrt(32 / alpha): with the same alpha the best rate is the same for all ranks (the same; Chen et al.
      2026, arXiv:2602.06204). With four times the alpha it was half as high where it was measured; by theory it is
      a quarter. RSLoRA divides by the root of the rank where LoRA divides by the rank, so its alpha counts as much
      more.

    Each factor is limited, and so is the rate.

    Args:
        method: a member of ``Method``.
        adapter: None: all weights are trained.
    """
    rate = FULL_RATES[method]
    if size.width is not None:
        rate *= _within((REFERENCE_WIDTH / size.width) ** WIDTH_EXPONENT, WIDTH_LIMITS)
    rate *= _within(sqrt(size.rows_per_step / REFERENCE_ROWS), ROWS_LIMITS)
    if adapter is not None:
        rate *= ADAPTER_FACTOR * (SHORT_RUN_FACTOR if size.steps < SHORT_RUN_STEPS else 1)
        rate *= _within(sqrt(REFERENCE_ALPHA / _alpha_of_lora(adapter)), ALPHA_LIMITS)
    return float(f"{min(rate, MOST if adapter is None else MOST_WITH_ADAPTER):.2g}")


def _alpha_of_lora(adapter: Adapter) -> float:
    """The alpha with which LoRA of the same rank would scale alike."""
    return adapter.alpha * (sqrt(adapter.rank) if adapter.type is AdapterType.RSLORA else 1)


def _within(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return min(max(value, low), high)
