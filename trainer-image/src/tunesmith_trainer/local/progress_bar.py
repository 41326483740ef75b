"""How far prepare is, for whoever looks at a terminal."""

from typing import Any, TextIO

from tqdm import tqdm

_FORMAT = "{desc:<10}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"


class ProgressBar:
    """A bar for each stage of prepare, spoken to like ``Progress``; silent where nobody looks.

    Args:
        stream: where bars are drawn, if it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def update(self, done: int, total: int, stage: str = "reading", **metrics: float | int | str) -> None:
        """Say that ``done`` of ``total`` are done; a stage that begins gets a line of its own."""
        if not self._stream.isatty():
            return
        if self._bar is None or stage != self._stage or done < self._bar.n:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=total, desc=stage, file=self._stream, unit_scale=True, bar_format=_FORMAT, disable=False
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the last bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
