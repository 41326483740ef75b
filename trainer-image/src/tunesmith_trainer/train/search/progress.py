"""Progress of a search in one pod: that of its trials together, and each trial in one line."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.progress import TRIAL_PREFIX
from tunesmith_contract.search import SearchSettings, to_line
from tunesmith_data.pod.progress import ProgressReporter

from .journal import TrialJournal

#: Parts of a trial in which its progress is counted.
_PARTS = 1000


class SearchProgress(ProgressReporter):
    """Sender of a search's progress: steps of the running trial, share of all trials, and every trial as a line.

    Args:
        settings: the search.
        journal: its trials.
    """

    def __init__(self, settings: SearchSettings, journal: TrialJournal) -> None:
        super().__init__()
        self._settings = settings
        self._journal = journal

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Report that ``done`` of ``total`` steps of the running trial are done."""
        part, whole = self._of_search(done, total)
        super().update(part, whole, **(self._trials() | _steps(done, total) | metrics))

    def announce(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Report now, without rate limit."""
        part, whole = self._of_search(done, total)
        super().announce(part, whole, **(self._trials() | _steps(done, total) | metrics))

    def announce_trials(self) -> None:
        """Report the trials now, between two of them."""
        part, whole = self._of_search(0, 1)
        super().announce(part, whole, **self._trials())

    def _of_search(self, done: int, total: int) -> tuple[int, int]:
        running = self._journal.running() is not None
        ended = len(self._journal.entries) - running
        part = _PARTS * done // max(1, total) if running else 0
        return ended * _PARTS + part, max(self._settings.trials, len(self._journal.entries)) * _PARTS

    def _trials(self) -> dict[str, float | int | str]:
        return {
            f"{TRIAL_PREFIX}{trial.number}": to_line(self._settings, trial) for trial in self._journal.trials
        }


class ReportSteps(TrainerCallback):
    """Sender of a trial's steps, with what was logged last.

    transformers' own would report each trial as if it were the whole run.

    Args:
        progress: connection to the operator.
    """

    def __init__(self, progress: SearchProgress) -> None:
        self._progress = progress
        self._logged: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Note the logged numbers."""
        self._logged |= {
            name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))
        }

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report the step, every few seconds."""
        if state.is_world_process_zero:
            epoch = {} if state.epoch is None else {"current_epoch": round(state.epoch, 2)}
            self._progress.update(state.global_step, state.max_steps, **(self._logged | epoch))


def _steps(done: int, total: int) -> dict[str, float | int | str]:
    return {"current_step": done, "total_steps": total}
