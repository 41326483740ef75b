"""Progress of the whole prepare stage, computed from the progress of its parts."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

from tunesmith_contract.progress import PreparePart

ReportRows = Callable[[int, int], None]
"""Callback with the rows that have passed through a part, and the total; both may be estimates."""

#: Steps in which the progress of the whole stage is reported.
WHOLE = 1000
#: Largest value before the end: rounding must not make 100 % of it.
ALMOST = 990


class _PartDuration(NamedTuple):
    """Usual seconds of a part: while rows pass through it, and after the last one."""

    per_rows: float
    after: float = 0.0


#: For 200,000 conversations (docs/benchmarks.md); only the ratios matter.
_PART_DURATIONS = {
    PreparePart.READING: _PartDuration(26),
    PreparePart.CLEANING: _PartDuration(15.5, 0.5),
    PreparePart.JUDGING: _PartDuration(16, 8),
    PreparePart.WRITING: _PartDuration(3),
}
#: A teacher that answers twenty prompts a second takes longer than all other parts.
_ASKING = {PreparePart.ASKING: _PartDuration(10_000)}


class ProgressListener(Protocol):
    """Receiver of a stage's progress: the operator's server, or a terminal."""

    def update(self, done: int, total: int, *, part: str = ..., rows: int = ...) -> None:
        """Take note that ``done`` of ``total`` are done; ``rows`` have gone through ``part``."""


class PrepareProgress:
    """Progress of the whole stage; never decreases, and is complete only at the end.

    Args:
        listener: receives the progress.
        asks_teacher: prompts are answered before they are read as rows.
    """

    def __init__(self, listener: ProgressListener, *, asks_teacher: bool) -> None:
        self._listener = listener
        self._durations = (_ASKING if asks_teacher else {}) | _PART_DURATIONS
        *begins, self._seconds = accumulate(map(sum, self._durations.values()), initial=0.0)
        self._begins = dict(zip(self._durations, begins, strict=True))
        self._done = 0

    def for_part(self, part: PreparePart) -> ReportRows:
        """Callback for the progress of a part."""
        return partial(self._report, part)

    def finish(self) -> None:
        """Report that the stage is done."""
        self._listener.update(WHOLE, WHOLE)

    def _report(self, part: PreparePart, rows: int, total: int) -> None:
        seconds = self._begins[part] + self._durations[part].per_rows * min(1.0, rows / max(1, total))
        self._done = max(self._done, min(ALMOST, int(WHOLE * seconds / self._seconds)))
        self._listener.update(self._done, WHOLE, part=part, rows=rows)
