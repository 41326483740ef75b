"""How far the whole of prepare is, from how far each of its parts is."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

from tunesmith_contract.progress import PreparePart

Seen = Callable[[int, int], None]
"""Is told how many rows have gone through a part, and of how many; both may be estimates that change."""

#: The whole, in the steps in which it is told.
WHOLE = 1000
#: As far as it goes before the end: no rounding makes 100 % of it.
ALMOST = 990


class _Usual(NamedTuple):
    """Seconds that a part takes: while rows go through it, and after the last one."""

    seeing: float
    after: float = 0.0


#: Of 200,000 conversations (docs/benchmarks.md); what matters is how the parts compare.
_USUAL = {
    PreparePart.READING: _Usual(26),
    PreparePart.CLEANING: _Usual(15.5, 0.5),
    PreparePart.JUDGING: _Usual(16, 8),
    PreparePart.WRITING: _Usual(3),
}
#: A teacher who answers twenty prompts a second outlasts all else.
_ASKING = {PreparePart.ASKING: _Usual(10_000)}


class ProgressListener(Protocol):
    """Receiver of a stage's progress: the operator's server, or a terminal."""

    def update(self, done: int, total: int, *, part: str = ..., rows: int = ...) -> None:
        """Take note that ``done`` of ``total`` are done; ``rows`` have gone through ``part``."""


class PrepareProgress:
    """Tells one share of the whole, which never goes back, and is whole at the end alone.

    Args:
        listener: is told.
        asks_teacher: prompts are answered before they are read as rows.
    """

    def __init__(self, listener: ProgressListener, *, asks_teacher: bool) -> None:
        self._listener = listener
        self._usual = (_ASKING if asks_teacher else {}) | _USUAL
        *begins, self._seconds = accumulate(map(sum, self._usual.values()), initial=0.0)
        self._begins = dict(zip(self._usual, begins, strict=True))
        self._done = 0

    def of(self, part: PreparePart) -> Seen:
        """What a part is to tell its rows to."""
        return partial(self._see, part)

    def finish(self) -> None:
        """Say that all is done."""
        self._listener.update(WHOLE, WHOLE)

    def _see(self, part: PreparePart, rows: int, total: int) -> None:
        seconds = self._begins[part] + self._usual[part].seeing * min(1.0, rows / max(1, total))
        self._done = max(self._done, min(ALMOST, int(WHOLE * seconds / self._seconds)))
        self._listener.update(self._done, WHOLE, part=part, rows=rows)
