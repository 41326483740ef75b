"""The best checkpoint instead of the last one, and an end when the validation loss no longer falls.

All of it is a function of the trainer's log, which every checkpoint holds: a resumed run knows what the interrupted
one knew, and all ranks decide alike, since all of them log the same gathered numbers.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.methods import Method
from tunesmith_contract.progress import EVAL_REWARD
from tunesmith_contract.run_config import EarlyStopping
from tunesmith_trainer.checkpoints.folder import is_whole

from .overfitting import Measurement, find_turn

log = logging.getLogger(__name__)

LOSS = "eval_loss"
#: Methods whose loss says nothing of their success: its expectation is about zero throughout.
_REWARDED = frozenset({"grpo", "rloo"})


class TrainingOver(Exception):
    """A resumed run had nothing left to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands after its measurements so far.

    Attributes:
        best: the lowest measurement, the earlier of two equal ones.
        waited: measurements since one was the lowest by more than ``min_delta``.
    """

    best: Measurement | None = None
    waited: int = 0


def measure_standing(measurements: Iterable[Measurement], min_delta: float = 0.0) -> Standing:
    """The best measurement, and for how many there was no improvement worth the name."""
    best, reference, waited = None, math.inf, 0
    for measurement in measurements:
        if best is None or measurement.loss < best.loss:
            best = measurement
        improved = measurement.loss < reference - min_delta
        reference = measurement.loss if improved else reference
        waited = 0 if improved else waited + 1
    return Standing(best, waited)


class Selection:
    """Which measurement of a run's log counts, and what follows from it.

    Args:
        method: what is learned; where answers are rewarded, a higher reward is better.
        early_stopping: None: training goes on to its last step.
    """

    def __init__(self, method: Method, early_stopping: EarlyStopping | None) -> None:
        self._rewarded = method.key in _REWARDED
        self._early_stopping = early_stopping

    def measurements(self, history: Iterable[Mapping[str, Any]]) -> list[Measurement]:
        """What was measured on the validation rows, lower is better, once per step; numbers only."""
        name, sign = (EVAL_REWARD, -1.0) if self._rewarded else (LOSS, 1.0)
        found = {int(entry["step"]): sign * entry[name] for entry in history if name in entry}
        return [Measurement(step, loss) for step, loss in sorted(found.items()) if math.isfinite(loss)]

    def best_step(self, history: Iterable[Mapping[str, Any]]) -> int | None:
        """The step that was measured best; None without validation rows."""
        best = measure_standing(self.measurements(history)).best
        return best.step if best else None

    def stops(self, history: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the validation loss has stopped falling."""
        if self._early_stopping is None:
            return False
        standing = measure_standing(self.measurements(history), self._early_stopping.min_delta)
        return standing.waited >= self._early_stopping.patience

    def overfitting_step(self, history: Iterable[Mapping[str, Any]]) -> int | None:
        """Where the validation loss turned; a reward has no such point."""
        return None if self._rewarded else find_turn(self.measurements(history))


class StopEarly(TrainerCallback):
    """Stops training at the end of its patience, and names the best step.

    Attributes:
        stopped: training ended before its last step.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Do no step more where the checkpoint that is resumed from is the last one.

        Raises:
            TrainingOver: it is; the trainer would do another step before it looked.
        """
        self.stopped = self._selection.stops(state.log_history)
        if self.stopped or state.global_step >= state.max_steps:
            raise TrainingOver

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the last measurement; the checkpoint of this step is saved all the same."""
        # The best checkpoint is kept, however old it is.
        state.best_global_step = self._selection.best_step(state.log_history) or 0
        if self._selection.stops(state.log_history) and state.global_step < state.max_steps:
            log.info("the validation loss has stopped falling: training ends at step %d", state.global_step)
            self.stopped = True
            control.should_training_stop = True


def run_training(trainer: Any, checkpoint: Path | None) -> None:
    """Train from a checkpoint on, if there is anything left to do."""
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except TrainingOver:
        log.info("nothing is left to train after step %d", trainer.state.global_step)
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    # transformers sums up what this process did; a run that was interrupted is to leave the same log.
    history = trainer.state.log_history
    trainer.state.log_history = [entry for entry in history if "train_runtime" not in entry]


def choose_checkpoint(selection: Selection, history: Sequence[Mapping[str, Any]], root: Path) -> Path | None:
    """The best checkpoint that is whole; None where the last step was the best, or none was measured."""
    measured = sorted(selection.measurements(history), key=lambda measurement: measurement.loss)
    last = max((int(entry["step"]) for entry in history), default=0)
    for measurement in measured:
        if measurement.step == last:
            return None
        folder = root / f"checkpoint-{measurement.step}"
        if is_whole(folder):
            return folder
        log.warning("checkpoint %s, measured better, is missing or damaged", folder.name)
    return None


def load_best(trainer: Any, selection: Selection, root: Path) -> int | None:
    """Bring the best checkpoint's weights into the trainer's model, on all ranks.

    Returns:
        The step whose weights the model holds, where an earlier one was better than the last.
    """
    folder = choose_checkpoint(selection, trainer.state.log_history, root)
    if folder is None:
        return None
    trainer.state.best_model_checkpoint = str(folder)
    # Knows how plain, PEFT's and DeepSpeed's checkpoints are read; only its choice of folder isn't ours.
    trainer._load_best_model()
    return int(folder.name.rpartition("-")[2])
