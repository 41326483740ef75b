"""Resolved train configurations, as written by the operator."""

from typing import Any

from tunesmith_contract.run_config import TrainConfig


def make_run(**more: Any) -> TrainConfig:
    """A run on one GPU."""
    run: dict[str, Any] = {
        "owner": {"kind": "FineTuneJob", "namespace": "n", "name": "j", "uid": "u"},
        "baseModel": "pvc://m/x",
        "baseModelRevision": "r",
        "datasetDigest": "sha256:" + "0" * 64,
        "method": {"sft": {"maxLength": 2048}},
        "adapter": {"rank": 16},
        "hyperparameters": {"learningRate": 1e-4, "batchSize": 16, "microBatchSize": 4},
        "checkpoints": {},
        "gpusPerNode": 1,
        "image": "i",
        "output": "pvc://o/x",
    }
    return TrainConfig.model_validate(run | more)
