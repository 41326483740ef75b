"""Fixtures of the trainer's tests."""

import pytest
from stages.fixtures import *  # noqa: F403

from tunesmith_contract.run_config import TrainConfig


@pytest.fixture
def plain() -> TrainConfig:
    """A configuration that is never run."""
    return TrainConfig.model_validate(
        {
            "owner": {"kind": "FineTuneJob", "namespace": "ns", "name": "n", "uid": "u"},
            "baseModel": "pvc://models/llama",
            "baseModelRevision": "r",
            "datasetDigest": "sha256:" + "0" * 64,
            "method": {"sft": {}},
            "adapter": {},
            "hyperparameters": {"learningRate": 1e-3, "batchSize": 16, "microBatchSize": 2},
            "checkpoints": {},
            "image": "i",
            "output": "pvc://o",
        }
    )
