"""Remedy for training that ran out of memory: once, a smaller micro batch for the same effective batch."""

from collections.abc import Sequence

from tunesmith.manifests.result_config_map import AttemptRecord, Remedy
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.shared_rules.defaults import rows_at_once


def micro_batch_size(run: TrainConfig, records: Sequence[AttemptRecord]) -> int:
    """Rows that go through the model at once in the next attempt."""
    remedies = [record.remedy for record in records if record.remedy]
    return remedies[-1].micro_batch_size if remedies else run.hyperparameters.micro_batch_size


def find_remedy(run: TrainConfig, failure: Failure, records: Sequence[AttemptRecord]) -> Remedy | None:
    """Remedy with at most half the rows at once, still a divisor of the device's share.

    None if there is no such number, or a remedy was tried already.
    """
    if failure.category is not FailureCategory.OUT_OF_MEMORY or any(record.remedy for record in records):
        return None
    before = run.hyperparameters.micro_batch_size
    per_device = run.hyperparameters.batch_size // (run.nodes * max(1, run.gpus_per_node))
    smaller = [size for size in range(rows_at_once(run.method), before // 2 + 1) if per_device % size == 0]
    return Remedy(before=before, micro_batch_size=smaller[-1]) if smaller else None


def without_remedy(run: TrainConfig, failure: Failure, records: Sequence[AttemptRecord]) -> Failure:
    """The failure, with what a person can change, where the operator can change nothing more."""
    if failure.category is not FailureCategory.OUT_OF_MEMORY:
        return failure
    tried = micro_batch_size(run, records)
    advice = ", ".join(_advice(run))
    message = f"Memory ran out with {tried} rows at a time ({failure.message}). Write {advice}."
    return failure.model_copy(update={"message": message[:2048]})


def _advice(run: TrainConfig) -> list[str]:
    shorter = max(8, run.method.max_length // 2)
    advice = [f"a smaller method.{run.method.key}.maxLength, such as {shorter}"]
    if run.adapter is None:
        advice.append("an adapter instead of full fine-tuning")
    elif run.gpus_per_node:
        advice.append("adapter.type: QLoRA")
    if run.gpus_per_node:
        advice.append("a node with more GPU memory")
    return [*advice, "or more memory in compute.resources"]
