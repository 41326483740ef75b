"""Search for hyperparameters: its settings, and its trials. Shared by operator, trainer and the search itself.

Values of parameters are text, as people write them in a spec: they stay the same in every document.
"""

import math
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from .base import Document, Report

MAX_PARAMETERS = 8
MAX_VALUES = 16
MAX_TRIALS = 64
MAX_PARALLELISM = 16
MAX_MEASUREMENTS = 32

#: Value of a parameter: a decimal number, or a word.
ParameterValue = Annotated[str, Field(max_length=16)]


class Sampler(StrEnum):
    """Method that proposes the parameters of the next trial.

    ``Random`` draws them independently. ``TPE`` learns from the losses of earlier trials (tree-structured Parzen
    estimator: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization").
    """

    RANDOM = "Random"
    TPE = "TPE"


class Pruner(StrEnum):
    """Method that ends trials early."""

    NONE = "None"
    SUCCESSIVE_HALVING = "SuccessiveHalving"


class Scale(StrEnum):
    """Scale on which a range is searched: equal ratios, or equal differences, are equally likely."""

    LOG = "Log"
    LINEAR = "Linear"


class SearchMode(StrEnum):
    """Place where trials run: a FineTuneJob for each, or one after the other in the pod of the job itself."""

    JOBS = "Jobs"
    SHARED_POD = "SharedPod"


class ParameterName(StrEnum):
    """Name of a hyperparameter that can be searched.

    ``alphaRatio`` is alpha divided by the rank.
    """

    LEARNING_RATE = "learningRate"
    BATCH_SIZE = "batchSize"
    EPOCHS = "epochs"
    MAX_STEPS = "maxSteps"
    WARMUP_RATIO = "warmupRatio"
    WEIGHT_DECAY = "weightDecay"
    MAX_GRAD_NORM = "maxGradNorm"
    SCHEDULER = "scheduler"
    RANK = "rank"
    ALPHA = "alpha"
    ALPHA_RATIO = "alphaRatio"
    DROPOUT = "dropout"


#: Parameters that are whole numbers.
WHOLE_NUMBERS = frozenset(
    {
        ParameterName.BATCH_SIZE,
        ParameterName.EPOCHS,
        ParameterName.MAX_STEPS,
        ParameterName.RANK,
        ParameterName.ALPHA,
    }
)
#: Parameters of the adapter; the others are those of ``hyperparameters``.
OF_ADAPTER = frozenset(
    {ParameterName.RANK, ParameterName.ALPHA, ParameterName.ALPHA_RATIO, ParameterName.DROPOUT}
)


class Parameter(Document):
    """A hyperparameter with the values that may be tried: a list, or the range from ``min`` to ``max``."""

    name: ParameterName
    values: tuple[ParameterValue, ...] = Field((), max_length=MAX_VALUES)
    min: ParameterValue | None = None
    max: ParameterValue | None = None
    scale: Scale = Scale.LINEAR

    @model_validator(mode="after")
    def _values_or_range(self) -> Self:
        if bool(self.values) == (self.min is not None and self.max is not None):
            raise ValueError(f"{self.name} needs either values, or min and max")
        return self


class SuccessiveHalving(Document):
    """Early end of trials that fall behind (asynchronous successive halving: Li et al. 2018, arXiv:1810.05934).

    Trials are compared at ``start_percent`` of their steps, at ``reduction_factor`` times that, and so on. At each of
    these points a trial goes on only if its validation loss is among the best 1/``reduction_factor`` of all that have
    reached it.
    """

    start_percent: int = Field(10, ge=1, le=50)
    reduction_factor: int = Field(3, ge=2, le=8)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Points of comparison in per cent of a trial's steps, below 100."""
        found, percent = [], self.start_percent
        while percent < 100:
            found.append(percent)
            percent *= self.reduction_factor
        return tuple(found)


class SearchSettings(Document):
    """Settings of a search.

    Attributes:
        trials: trials at most.
        gpu_seconds: GPU time of all trials together at most; None for no limit.
        parallelism: trials that run at the same time.
        seed: seed of the sampler.
    """

    sampler: Sampler = Sampler.TPE
    pruner: SuccessiveHalving | None = None
    parameters: tuple[Parameter, ...] = Field(min_length=1, max_length=MAX_PARAMETERS)
    trials: int = Field(ge=1, le=MAX_TRIALS)
    gpu_seconds: float | None = Field(None, gt=0)
    parallelism: int = Field(1, ge=1, le=MAX_PARALLELISM)
    seed: int = 42


class TrialState(StrEnum):
    """State of a trial. ``Pruned``: ended early because it fell behind."""

    RUNNING = "Running"
    COMPLETED = "Completed"
    PRUNED = "Pruned"
    FAILED = "Failed"


class Measurement(Report):
    """Validation loss at a point of a trial, in per cent of its steps and nats per token."""

    percent: float = Field(ge=0, le=100)
    loss: float


class Trial(Report):
    """One trial.

    Attributes:
        number: from 1, in the order in which trials were proposed.
        parameters: value by name of the parameter.
        measurements: validation losses so far, in the order of the steps.
        loss: the validation loss of the trial's artifact in nats per token; of a pruned trial, the last one measured.
        message: cause of the end of a trial that was pruned or failed.
    """

    number: int = Field(ge=1, le=MAX_TRIALS)
    parameters: dict[ParameterName, ParameterValue]
    state: TrialState = TrialState.RUNNING
    measurements: tuple[Measurement, ...] = Field((), max_length=MAX_MEASUREMENTS)
    loss: float | None = None
    gpu_seconds: float = Field(0.0, ge=0)
    message: str = Field("", max_length=512)


#: Place of a loss that was not measured.
_NO_LOSS = "-"
_FIXED_WORDS = 4


def to_line(settings: SearchSettings, trial: Trial) -> str:
    """A trial as one line of words: number, state, loss, GPU seconds, and the values in the order of ``settings``.

    The form in which a pod sends its trials to the operator; ``from_line`` reads it.
    """
    values = (trial.parameters[parameter.name] for parameter in settings.parameters)
    loss = _NO_LOSS if trial.loss is None else f"{trial.loss:.6g}"
    return " ".join((str(trial.number), trial.state, loss, f"{trial.gpu_seconds:.0f}", *values))


def from_line(settings: SearchSettings, line: str) -> Trial | None:
    """The trial in a line; None for a line that holds none: pods are not trusted."""
    words = line.split()
    if len(words) != _FIXED_WORDS + len(settings.parameters):
        return None
    number, state, loss, gpu_seconds, *values = words
    try:
        return Trial.model_validate(
            {
                "number": int(number),
                "parameters": {
                    parameter.name: value
                    for parameter, value in zip(settings.parameters, values, strict=True)
                },
                "state": state,
                "loss": None if loss == _NO_LOSS else _finite(loss),
                "gpuSeconds": _finite(gpu_seconds),
            }
        )
    except ValueError:
        return None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
