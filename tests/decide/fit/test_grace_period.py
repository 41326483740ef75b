"""Grace periods of training pods: long enough for their checkpoint, and bounded."""

from typing import Any

import pytest
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_3_70B
from training_memory.training_runs import make_run

from tunesmith.decide.fit.checkpoint_size import checkpoint_bytes
from tunesmith.decide.fit.grace_period import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    training_grace_seconds,
)
from tunesmith_contract.report import ModelReport


def test_checkpoints_are_as_large_as_measured_ones() -> None:
    """96 GB for all weights of an 8B model; 1.1 TB for a 70B model that DeepSpeed divides."""
    assert checkpoint_bytes(LLAMA_3_1_8B, make_run(adapter=None)) == pytest.approx(96e9, rel=0.01)
    divided = make_run(adapter=None, parallelism="ZeRO3", nodes=2, gpusPerNode=8)
    assert checkpoint_bytes(LLAMA_3_3_70B, divided) == pytest.approx(1.12e12, rel=0.02)
    assert checkpoint_bytes(LLAMA_3_1_8B, make_run()) < 1e9


@pytest.mark.parametrize(
    ("model", "run", "seconds"),
    [
        (None, {"adapter": None}, SHORTEST_SECONDS),
        (LLAMA_3_1_8B, {}, 123),
        (LLAMA_3_1_8B, {"adapter": None}, 506),
        (LLAMA_3_1_8B, {"adapter": None, "output": "s3://bucket/x"}, 698),
        (
            LLAMA_3_3_70B,
            {"adapter": None, "parallelism": "ZeRO3", "nodes": 2, "gpusPerNode": 8},
            2519,
        ),
        (LLAMA_3_3_70B, {"adapter": None, "output": "s3://bucket/x"}, LONGEST_SECONDS),
    ],
    ids=["unknown", "adapter", "all-weights", "uploaded", "divided", "longest"],
)
def test_a_checkpoint_fits_into_its_grace_period(
    model: ModelReport | None, run: dict[str, Any], seconds: int
) -> None:
    assert training_grace_seconds(model, make_run(**run)) == pytest.approx(seconds, abs=3)


def test_a_bucket_for_work_files_counts_and_not_the_one_for_artifacts() -> None:
    to_claim = make_run(adapter=None, workspace="pvc://work/x", output="s3://bucket/x")
    assert training_grace_seconds(LLAMA_3_1_8B, to_claim) == pytest.approx(506, abs=3)
