"""Progress bar of prepare in a terminal."""

from typing import Any, TextIO

from tqdm import tqdm

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| [{elapsed}<{remaining}]"


class ProgressBar:
    """Progress bar of the whole of prepare, with the interface of ``Progress``; nothing is shown outside a terminal.

    Args:
        stream: where bars are drawn, if it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Any] | None = None

    def update(self, done: int, total: int, part: str = "", rows: int = 0) -> None:
        """Show that ``done`` of ``total`` units of work are done.

        Args:
            part: name of the current part; by default that of the last update.
            rows: number of rows that the part has processed.
        """
        if not self._stream.isatty():
            return
        if self._bar is None:
            # Without smoothing the time left follows from all that was done: parts differ in their speed.
            self._bar = tqdm(
                total=total, initial=done, smoothing=0, file=self._stream, bar_format=_FORMAT, disable=False
            )
        if part:
            self._bar.set_description_str(f"{part:<8} {rows:>9,} rows", refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
