"""Expected steps, tokens and duration of training, estimated before a GPU is requested."""

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
    """Expected size of the whole training, an order of magnitude.

    Attributes:
        steps: the number of optimizer steps.
        tokens: the number of processed tokens.
        duration: the duration on the slowest GPUs that the pods may be scheduled to; None without GPUs, or if their
            speed is unknown.
    """

    steps: int
    tokens: int
    duration: Duration | None = None

    @property
    def gpu_seconds(self) -> float | None:
        """GPU seconds: the number of GPUs times the duration."""
        return self.duration.gpu_seconds if self.duration else None


def expect_training(
    spec: FineTuneJobSpec, nodes: Iterable[Mapping[str, Any]], run: TrainConfig, report: RunReport
) -> Expected | None:
    """Expected size of a run, or None if the report of the preparation lacks model or data.

    Args:
        nodes: the nodes of the cluster.
        report: the report of a successful preparation.
    """
    if report.model is None or report.dataset is None:
        return None
    dataset = report.dataset
    product = slowest_product(fitting_gpu_nodes(spec, nodes)) if spec.compute.gpus_per_node else None
    duration = estimate_duration(report.model, dataset, run, product) if product else None
    return Expected(count_steps(dataset, run), round(trained_tokens(dataset, run)), duration)


def count_steps(dataset: DatasetReport, run: TrainConfig) -> int:
    """Number of optimizer steps of all epochs; the last step of each epoch may have fewer rows.

    A batch counts rows, packed sequences, or answers if the model generates them itself.
    """
    numbers, online = run.hyperparameters, run.method.grpo or run.method.rloo
    answers = dataset.train_rows * (online.generations if online else 1)
    sequences = _packed_sequences(dataset, run) if getattr(run.method.member, "packing", False) else answers
    whole = numbers.epochs * max(1, ceil(sequences / numbers.batch_size))
    return min(whole, numbers.max_steps or whole)


def _packed_sequences(dataset: DatasetReport, run: TrainConfig) -> int:
    rows, longest = dataset.train_rows + dataset.validation_rows, run.method.max_length
    return ceil(dataset.train_rows * min(dataset.tokens.total / max(1, rows), longest) / longest)
