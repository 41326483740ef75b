"""Selection of the best checkpoint by validation metric, and early stopping.

All decisions are functions of the trainer's log, which every checkpoint contains. So a resumed run decides as the
interrupted one would have, and all ranks decide alike, since they log the same gathered metrics.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.layout import checkpoint_name
from tunesmith_contract.methods import Method
from tunesmith_contract.progress import EVAL_REWARD
from tunesmith_contract.run_config import EarlyStopping
from tunesmith_trainer.checkpoints.folder import step_of

from .overfitting import ValidationMeasurement, find_overfitting_step

log = logging.getLogger(__name__)

LOSS = "eval_loss"
#: Methods that are measured by reward: the expectation of their loss is about zero throughout.
_REWARD_METHODS = frozenset({"grpo", "rloo"})


class TrainingAlreadyComplete(Exception):
    """No steps are left in a resumed run."""


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """Best validation measurement, and time without improvement.

    Attributes:
        best: the lowest measurement; of equal ones the earliest.
        without_improvement: number of measurements since the last improvement by more than ``min_delta``.
    """

    best: ValidationMeasurement | None = None
    without_improvement: int = 0


def find_best(measurements: Iterable[ValidationMeasurement], min_delta: float = 0.0) -> BestSoFar:
    """Best of a run's measurements, and the number of measurements since the last improvement.

    Args:
        measurements: measurements in order of their steps.
        min_delta: decrease of the loss that counts as an improvement.
    """
    best, reference, without_improvement = None, math.inf, 0
    for measurement in measurements:
        if best is None or measurement.loss < best.loss:
            best = measurement
        improved = measurement.loss < reference - min_delta
        reference = measurement.loss if improved else reference
        without_improvement = 0 if improved else without_improvement + 1
    return BestSoFar(best, without_improvement)


class CheckpointSelection:
    """Best step, early stop and overfitting step by the trainer's log.

    Args:
        method: training method; online methods are measured by reward, all others by validation loss.
        early_stopping: settings; None to train to the last step.
    """

    def __init__(self, method: Method, early_stopping: EarlyStopping | None) -> None:
        self._by_reward = method.key in _REWARD_METHODS
        self._early_stopping = early_stopping

    def measurements(self, history: Iterable[Mapping[str, Any]]) -> list[ValidationMeasurement]:
        """Finite measurements on the validation rows, one per step; lower is better (rewards are negated)."""
        name, sign = (EVAL_REWARD, -1.0) if self._by_reward else (LOSS, 1.0)
        by_step = {int(entry["step"]): sign * entry[name] for entry in history if name in entry}
        return [
            ValidationMeasurement(step, loss) for step, loss in sorted(by_step.items()) if math.isfinite(loss)
        ]

    def best_step(self, history: Iterable[Mapping[str, Any]]) -> int | None:
        """Step of the best measurement; None without validation rows."""
        best = find_best(self.measurements(history)).best
        return best.step if best else None

    def stops(self, history: Iterable[Mapping[str, Any]]) -> bool:
        """True if there was no improvement for as many measurements as the patience allows."""
        if self._early_stopping is None:
            return False
        progress = find_best(self.measurements(history), self._early_stopping.min_delta)
        return progress.without_improvement >= self._early_stopping.patience

    def overfitting_step(self, history: Iterable[Mapping[str, Any]]) -> int | None:
        """Step after which the validation loss rises; None if it does not, or for methods measured by reward."""
        return None if self._by_reward else find_overfitting_step(self.measurements(history))


class StopEarly(TrainerCallback):
    """Early stopping, with the best step recorded in the trainer's state.

    Attributes:
        stopped: training ended before its last step.
    """

    def __init__(self, selection: CheckpointSelection) -> None:
        self._selection = selection
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop before the first step if the checkpoint that is resumed from is the last one.

        Raises:
            TrainingAlreadyComplete: it is; the trainer would do one more step before it checks.
        """
        self.stopped = self._selection.stops(state.log_history)
        if self.stopped or state.global_step >= state.max_steps:
            raise TrainingAlreadyComplete

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check the last measurement; the checkpoint of this step is still saved."""
        # The best checkpoint is kept, however old it is.
        state.best_global_step = self._selection.best_step(state.log_history) or 0
        if self._selection.stops(state.log_history) and state.global_step < state.max_steps:
            log.info("early stopping at step %d: the validation metric no longer improves", state.global_step)
            self.stopped = True
            control.should_training_stop = True


def run_training(trainer: Any, checkpoint: Path | None) -> None:
    """Train, from a checkpoint if given; does nothing if no steps are left."""
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except TrainingAlreadyComplete:
        log.info("no steps are left after step %d", trainer.state.global_step)
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    # Summary of this process alone: removed, so that an interrupted run has the same log as another.
    history = trainer.state.log_history
    trainer.state.log_history = [entry for entry in history if "train_runtime" not in entry]


def choose_checkpoint(
    selection: CheckpointSelection,
    history: Sequence[Mapping[str, Any]],
    root: Path,
    verify: Callable[[Path], bool],
) -> Path | None:
    """Folder of the best complete checkpoint; None if the last step is the best, or none was evaluated."""
    measured = sorted(selection.measurements(history), key=lambda measurement: measurement.loss)
    last = max((int(entry["step"]) for entry in history), default=0)
    for measurement in measured:
        if measurement.step == last:
            return None
        folder = root / checkpoint_name(measurement.step)
        if verify(folder):
            return folder
        log.warning("%s has a better validation metric, but is missing or damaged", folder.name)
    return None


#: Checkpoint that a search on the first rank finds, on every rank; the search gets a function that verifies one.
FindTogether = Callable[[Callable[[Callable[[Path], bool]], Path | None]], Path | None]


def load_best_checkpoint(
    trainer: Any, selection: CheckpointSelection, checkpoints: Path, find: FindTogether
) -> int | None:
    """Load the best checkpoint's weights into the trainer's model; all ranks must call it.

    Args:
        checkpoints: folder of the run's checkpoints.
        find: how all ranks find one.

    Returns:
        Step of the loaded checkpoint; None if the last step is the best, and nothing was loaded.
    """
    history = trainer.state.log_history
    folder = find(lambda verify: choose_checkpoint(selection, history, checkpoints, verify))
    if folder is None:
        return None
    trainer.state.best_model_checkpoint = str(folder)
    # Private, but it loads plain, PEFT and DeepSpeed checkpoints alike.
    trainer._load_best_model()
    return step_of(folder)
