"""Trials survive their way from a pod, and settings of a trial follow from its parameters."""

from typing import Any

import pytest

from tunesmith_contract.report import (
    TERMINATION_MESSAGE_BYTES,
    Artifact,
    Outcome,
    RunReport,
    SearchReport,
    TrainingReport,
    parse_report,
)
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.search import (
    MAX_TRIALS,
    Parameter,
    ParameterName,
    SearchSettings,
    SuccessiveHalving,
    Trial,
    from_line,
    to_line,
)
from tunesmith_contract.shared_rules.trials import changed_settings, configure_trial, measuring_interval

SEARCH = SearchSettings.model_validate(
    {
        "parameters": [
            {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"},
            {"name": "scheduler", "values": ["Linear", "Cosine"]},
        ],
        "trials": 64,
    }
)
DIGEST = "sha256:" + "f" * 64


def trial(number: int = 3, **fields: Any) -> Trial:
    parameters = {"learningRate": "1.235e-05", "scheduler": "Cosine"}
    return Trial.model_validate({"number": number, "parameters": parameters} | fields)


@pytest.mark.parametrize("fields", [{}, {"state": "Completed", "loss": 0.25, "gpuSeconds": 120}])
def test_a_trial_survives_its_line(fields: dict[str, Any]) -> None:
    assert from_line(SEARCH, to_line(SEARCH, trial(**fields))) == trial(**fields)


@pytest.mark.parametrize(
    "line",
    ["", "3 Completed 0.2 7 1e-4", "x Completed 0.2 7 1e-4 Cosine", "3 Done 0.2 7 1e-4 Cosine",
     "3 Completed nan 7 1e-4 Cosine", "3 Completed 0.2 inf 1e-4 Cosine", "99 Running - 0 1e-4 Cosine"],
)  # fmt: skip
def test_a_line_that_is_no_trial_is_left_out(line: str) -> None:
    assert from_line(SEARCH, line) is None


def test_a_parameter_has_values_or_a_range() -> None:
    for wrong in ({}, {"min": "1"}, {"values": ["1"], "min": "1", "max": "2"}):
        with pytest.raises(ValueError, match="either values, or min and max"):
            Parameter.model_validate({"name": "rank"} | wrong)


def test_the_worst_trials_are_left_out_of_a_report_that_is_too_long() -> None:
    lines = tuple(to_line(SEARCH, trial(number)) for number in range(1, MAX_TRIALS + 1))
    training = TrainingReport(
        artifact=Artifact(uri="pvc://artifacts/team", digest=DIGEST, size_bytes=7),
        steps=10,
        epochs=1,
        search=SearchReport(best=1, completed=MAX_TRIALS, trials=lines),
    )
    message = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=training).to_termination_message()
    assert len(message) <= TERMINATION_MESSAGE_BYTES
    read = parse_report(message)
    assert read is not None
    assert read.training is not None
    assert read.training.search is not None
    kept = read.training.search.trials
    assert kept == lines[: len(kept)]
    assert len(kept) > 40


def named(**values: str) -> dict[ParameterName, str]:
    return {ParameterName(name): value for name, value in values.items()}


def test_alpha_follows_the_rank_of_the_trial() -> None:
    numbers = named(learningRate="1e-3", epochs="2")
    assert changed_settings(numbers, 16) == ({"learningRate": "1e-3", "epochs": 2}, {})
    both = named(alphaRatio="2", rank="8")
    assert changed_settings(both, 16) == ({}, {"rank": 8, "alpha": 16})
    assert changed_settings(named(alphaRatio="0.5"), 16) == ({}, {"alpha": 8})


def test_each_point_of_comparison_is_measured() -> None:
    assert measuring_interval(100, 40, SuccessiveHalving()) == 4
    assert measuring_interval(100, 5, SuccessiveHalving()) == 1
    assert measuring_interval(100, 40, None) == 100
    assert measuring_interval(2, 400, SuccessiveHalving()) == 2


CONFIG = TrainConfig.model_validate(
    {
        "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "expenses", "uid": "u"},
        "baseModel": "pvc://models/tiny",
        "baseModelRevision": "r1",
        "datasetDigest": DIGEST,
        "method": {"sft": {}},
        "adapter": {"rank": 16, "alpha": 32},
        "hyperparameters": {"learningRate": 2e-4, "batchSize": 16, "microBatchSize": 8},
        "checkpoints": {},
        "gpusPerNode": 2,
        "image": "trainer:1",
        "output": "pvc://artifacts",
        "search": SEARCH.to_dict() | {"pruner": {}},
    }
)


def test_a_trial_in_the_pod_of_its_job() -> None:
    changes = named(learningRate="1e-3", batchSize="12", rank="8", scheduler="Cosine")
    config = configure_trial(CONFIG, changes, steps_per_epoch=20)
    assert config.search is None
    numbers = config.hyperparameters
    assert (numbers.learning_rate, numbers.batch_size, numbers.micro_batch_size) == (1e-3, 12, 6)
    assert numbers.scheduler == "Cosine"
    assert config.adapter is not None
    assert (config.adapter.rank, config.adapter.alpha) == (8, 32)
    assert config.checkpoints.every_steps == 6
    assert configure_trial(CONFIG, {}).checkpoints == CONFIG.checkpoints


def test_a_batch_that_the_devices_cannot_share() -> None:
    with pytest.raises(ValueError, match="batchSize: 7 can't be shared evenly by 2 GPUs"):
        configure_trial(CONFIG, named(batchSize="7"))
