"""Early stopping and the best checkpoint, with and without interruptions."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from stages.stage_world import ProgressServer, RowBuilders, TrainReport, World

from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import EarlyStopping
from tunesmith_trainer.train.callbacks.early_stopping import CheckpointSelection, find_best
from tunesmith_trainer.train.callbacks.overfitting import ValidationMeasurement

SFT = Method.model_validate({"sft": {}})
RLOO = Method.model_validate({"rloo": {"rewards": [{"name": "r", "exact": {}}]}})


def logged(name: str, *losses: float) -> list[dict[str, Any]]:
    return [{"step": step, name: loss} for step, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "min_delta", "best", "without_improvement"),
    [
        ((3, 2, 1), 0.0, 3, 0),
        ((1, 2, 3), 0.0, 1, 2),
        ((2, 1, 1, 1), 0.0, 2, 2),
        ((2.0, 1.9, 1.8, 1.7), 0.25, 4, 0),
        ((2.0, 1.9, 1.8), 0.25, 3, 2),
    ],
)
def test_best_and_patience(
    losses: tuple[float, ...], min_delta: float, best: int, without_improvement: int
) -> None:
    series = [ValidationMeasurement(step, loss) for step, loss in enumerate(losses, start=1)]
    progress = find_best(series, min_delta)
    assert progress.best
    assert (progress.best.step, progress.without_improvement) == (best, without_improvement)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.integers(1, 5))
def test_a_run_stops_when_none_of_the_last_measurements_is_the_best(
    losses: list[float], patience: int
) -> None:
    selection = CheckpointSelection(SFT, EarlyStopping(patience=patience))
    history = logged("eval_loss", *losses)
    assert selection.best_step(history) == 1 + losses.index(min(losses))
    assert selection.stops(history) == (len(losses) - selection.best_step(history) >= patience)  # type: ignore[operator]
    assert not CheckpointSelection(SFT, None).stops(history)


def test_a_reward_is_better_the_higher_it_is_and_never_overfits() -> None:
    selection = CheckpointSelection(RLOO, EarlyStopping(patience=2))
    history = logged("eval_reward", 0.1, 0.9, 0.5, 0.2, 0.1) + logged("eval_loss", 1, 2, 3)
    assert selection.best_step(history) == 2
    assert selection.stops(history)
    assert selection.overfitting_step(history) is None


def overfit(world: World, make: RowBuilders) -> Any:
    """A run that learns its few rows by heart: the validation loss turns soon. All checkpoints are kept."""
    uri = world.write_rows("train.jsonl", make.rows(16))
    held_out = world.write_rows("validation.jsonl", make.rows(12, seed=7))
    prepared = world.prepare(world.prepare_config(uri, validation={"uri": held_out}))
    return world.train_config(
        prepared,
        adapter=None,
        hyperparameters={"epochs": 40, "learningRate": 5e-3, "batchSize": 4, "microBatchSize": 4},
        checkpoints={"everySteps": 4, "keep": 100},
        earlyStopping={"patience": 6},
    )


def artifact_folder(world: World, report: TrainReport) -> Path:
    digest = report.training.artifact.digest
    folder: Path = world.output / "sha256" / digest.removeprefix("sha256:")
    return folder


def steps_kept(world: World) -> list[int]:
    folders = (world.output / "ns/uid/checkpoints").glob("checkpoint-*")
    return sorted(int(folder.name.partition("-")[2]) for folder in folders)


def forget_end(world: World) -> None:
    """Remove what a run leaves after its last step."""
    (world.output / "ns/uid/reports/train.json").unlink()
    shutil.rmtree(world.output / "ns/uid/trained")


def test_the_best_weights_are_kept_through_early_stopping_and_resumes(
    world: World, make: RowBuilders, server: ProgressServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, received = server
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", url)
    config = overfit(world, make)
    report = world.train(config)
    training = report.training
    assert training.stopped_early
    assert training.best_step is not None
    assert training.best_step < training.steps < 160
    assert training.overfitting_step == training.best_step == training.steps - 24
    assert training.kernels == "SDPA"
    assert training.tokens_per_second
    assert training.peak_memory_bytes > 50e6
    assert training.micro_batch_size == 4
    measured = {point.step: point.eval_loss for point in training.curve if point.eval_loss is not None}
    assert training.eval_loss == min(measured.values()) == measured[training.best_step]
    checkpoints = world.output / "ns/uid/checkpoints"
    best = load_file(checkpoints / f"checkpoint-{training.best_step}/model.safetensors")
    tuned = load_file(artifact_folder(world, report) / "model.safetensors")
    assert all((best[name] == tensor).all() for name, tensor in tuned.items())
    told = b"".join(body for _, body in received)
    assert b'"overfitting_step"' in told
    assert b'"SDPA"' in told

    # Killed in the middle of its patience, killed after its end: patience and best are known from the log.
    assert steps_kept(world)[-1] == training.steps
    for last in (training.steps - 4, training.steps):
        forget_end(world)
        for step in steps_kept(world):
            if step > last:
                shutil.rmtree(checkpoints / f"checkpoint-{step}")
        again = world.train(config).training
        assert again.artifact == training.artifact
        assert (again.steps, again.best_step, again.stopped_early) == (
            training.steps,
            training.best_step,
            True,
        )
        assert again.curve == training.curve

    # Without the best one, whole as it has to be, the next best is taken.
    forget_end(world)
    weights = checkpoints / f"checkpoint-{training.best_step}/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    second = world.train(config).training
    rest = {step: loss for step, loss in measured.items() if step != training.best_step}
    assert second.best_step == min(rest, key=rest.__getitem__)


def test_the_best_checkpoint_outlives_newer_ones(world: World, make: RowBuilders) -> None:
    config = overfit(world, make)
    few = config.checkpoints.model_copy(update={"keep": 1})
    soon = config.early_stopping.model_copy(update={"patience": 2})
    training = world.train(config.model_copy(update={"checkpoints": few, "early_stopping": soon})).training
    assert training.best_step is not None
    assert steps_kept(world) == [training.best_step, training.steps]
    assert training.best_step < training.steps


def test_without_validation_rows_the_last_weights_are_kept(world: World, make: RowBuilders) -> None:
    uri = world.write_rows("train.jsonl", make.rows(8))
    prepared = world.prepare(world.prepare_config(uri, validation={"fraction": 0.0}))
    training = world.train(world.train_config(prepared, earlyStopping={"patience": 1})).training
    assert (training.best_step, training.eval_loss, training.stopped_early) == (None, None, False)
