"""What the whole of training will take, worked out once the data is known and before a GPU is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith_contract.report import DatasetReport, RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.shared_rules.duration import Duration

from .admission import fitting_gpu_nodes
from .duration import estimate_duration, trained_tokens
from .gpus import slowest_product


@dataclass(frozen=True, slots=True)
class Expected:
    """An order of magnitude, not a promise.

    Attributes:
        steps: optimizer steps.
        tokens: that go through the model.
        duration: on the slowest GPUs that the pods may get; None: there are none, or it is not known how fast they are.
    """

    steps: int
    tokens: int
    duration: Duration | None = None

    @property
    def gpu_seconds(self) -> float | None:
        """GPUs times seconds."""
        return self.duration.gpu_seconds if self.duration else None


def expect_training(
    spec: FineTuneJobSpec, nodes: Iterable[Mapping[str, Any]], run: TrainConfig, report: RunReport
) -> Expected | None:
    """What a run is expected to take; None where prepare's report says too little.

    Args:
        nodes: the cluster's.
        report: the success of prepare.
    """
    if report.model is None or report.dataset is None:
        return None
    dataset = report.dataset
    product = slowest_product(fitting_gpu_nodes(spec, nodes)) if spec.compute.gpus_per_node else None
    duration = estimate_duration(report.model, dataset, run, product) if product else None
    return Expected(count_steps(dataset, run), round(trained_tokens(dataset, run)), duration)


def count_steps(dataset: DatasetReport, run: TrainConfig) -> int:
    """Optimizer steps of all epochs; the last one of each may have fewer rows.

    A batch counts rows; packed sequences; or answers, where the model writes them itself.
    """
    numbers, online = run.hyperparameters, run.method.grpo or run.method.rloo
    answers = dataset.train_rows * (online.generations if online else 1)
    sequences = _packed_sequences(dataset, run) if getattr(run.method.member, "packing", False) else answers
    whole = numbers.epochs * max(1, ceil(sequences / numbers.batch_size))
    return min(whole, numbers.max_steps or whole)


def _packed_sequences(dataset: DatasetReport, run: TrainConfig) -> int:
    rows, longest = dataset.train_rows + dataset.validation_rows, run.method.max_length
    return ceil(dataset.train_rows * min(dataset.tokens.total / max(1, rows), longest) / longest)
