"""Expected duration of training, by the formula of the contract."""

from tunesmith_contract.report import DatasetReport, ModelReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.shared_rules.duration import Duration, Work, work_duration, work_tokens
from tunesmith_contract.shared_rules.gpus import Product


def estimate_duration(model: ModelReport, dataset: DatasetReport, run: TrainConfig, gpu: Product) -> Duration:
    """Duration of the whole training on GPUs of this product."""
    return work_duration(_work(model.parameters, dataset, run), gpu)


def trained_tokens(dataset: DatasetReport, run: TrainConfig) -> float:
    """Tokens processed in the whole training, without those that ``maxLength`` cuts off."""
    return work_tokens(_work(0, dataset, run))


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
