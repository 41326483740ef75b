"""Expected steps, tokens and duration of training, estimated before a GPU is requested."""

from dataclasses import dataclass
from math import ceil

from tunesmith_contract.report import DatasetReport, ModelReport, RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.shared_rules.duration import Duration, Work, work_duration, work_tokens
from tunesmith_contract.shared_rules.gpus import Product


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


def expect_training(product: Product | None, run: TrainConfig, report: RunReport) -> Expected | None:
    """Expected size of a run, or None if the report of the preparation lacks model or data.

    Args:
        product: the slowest GPUs that the run may get; None: unknown.
        report: the report of a successful preparation.
    """
    if report.model is None or report.dataset is None:
        return None
    dataset = report.dataset
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


def estimate_duration(model: ModelReport, dataset: DatasetReport, run: TrainConfig, gpu: Product) -> Duration:
    """Duration of the whole training on GPUs of this product."""
    return work_duration(_work(model.parameters, dataset, run), gpu)


def trained_tokens(dataset: DatasetReport, run: TrainConfig) -> float:
    """Tokens processed in the whole training, without those that ``maxLength`` cuts off."""
    return work_tokens(_work(0, dataset, run))


def _packed_sequences(dataset: DatasetReport, run: TrainConfig) -> int:
    rows, longest = dataset.train_rows + dataset.validation_rows, run.method.max_length
    return ceil(dataset.train_rows * min(dataset.tokens.total / max(1, rows), longest) / longest)


def _work(parameters: int, dataset: DatasetReport, run: TrainConfig) -> Work:
    return Work(
        parameters=parameters,
        rows=dataset.train_rows,
        row_tokens=dataset.tokens.total / max(1, dataset.train_rows + dataset.validation_rows),
        method=run.method,
        adapter=run.adapter.type if run.adapter else None,
        epochs=run.hyperparameters.epochs,
        batch_size=run.hyperparameters.batch_size,
        max_steps=run.hyperparameters.max_steps,
        activation_checkpointing=run.activation_checkpointing,
        devices=run.nodes * max(1, run.gpus_per_node),
    )
