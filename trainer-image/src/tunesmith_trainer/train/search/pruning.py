"""Early end of a trial that falls behind the others, or uses up the budget."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.search import MAX_MEASUREMENTS, Measurement, SuccessiveHalving
from tunesmith_trainer.train.callbacks.early_stopping import CheckpointSelection
from tunesmith_trainer.train.distributed.parallel import any_worker


class Pruned(Exception):
    """The trial is ended early; the message says why."""


class MeasureTrial(TrainerCallback):
    """Record of a trial's validation losses, and its end where they fall behind.

    The losses are read from the trainer's log, which every checkpoint holds: a resumed trial has all of them.

    Args:
        selection: finds the measurements in the log.
        measured: takes the measurements so far; true if the trial shall be ended. Called on all workers alike.
        saved: called after each checkpoint.
        pruner: settings of the comparison; None for none.
    """

    def __init__(
        self,
        selection: CheckpointSelection,
        measured: Callable[[tuple[Measurement, ...]], bool],
        saved: Callable[[], None],
        pruner: SuccessiveHalving | None,
    ) -> None:
        self._selection = selection
        self._measured = measured
        self._saved = saved
        self._rungs = pruner.rungs if pruner else ()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the validation loss.

        Raises:
            Pruned: the trial falls behind.
        """
        losses = find_measurements(self._selection, state.log_history, state.max_steps)
        if self._measured(keep_measurements(losses, self._rungs)) and state.global_step < state.max_steps:
            raise Pruned("others are better")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell of the checkpoint."""
        if state.is_world_process_zero:
            self._saved()


class StopAtBudget(TrainerCallback):
    """End of a trial when the search has used up its GPU time.

    Args:
        seconds: time that is left for the trial.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Compare the time; all workers must call it.

        Raises:
            Pruned: none is left.
        """
        if any_worker(time.monotonic() >= self._end) and state.global_step < state.max_steps:
            raise Pruned("the budget is used up")


def find_measurements(
    selection: CheckpointSelection, history: Sequence[Mapping[str, Any]], steps: int
) -> list[Measurement]:
    """Validation losses in a trainer's log.

    Args:
        steps: all steps of the trial.
    """
    return [
        Measurement(percent=min(100.0, 100 * step / steps), loss=loss)
        for step, loss in selection.measurements(history)
    ]


def keep_measurements(measurements: Sequence[Measurement], rungs: Sequence[int]) -> tuple[Measurement, ...]:
    """At most MAX_MEASUREMENTS of a trial's measurements: those at the points of comparison, and the latest ones."""
    compared = {next((each.percent for each in measurements if each.percent >= rung), None) for rung in rungs}
    room = MAX_MEASUREMENTS - sum(each.percent in compared for each in measurements)
    latest = [each.percent for each in measurements if each.percent not in compared][-room:] if room else []
    return tuple(each for each in measurements if each.percent in compared or each.percent in latest)
