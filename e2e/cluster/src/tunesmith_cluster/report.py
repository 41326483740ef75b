"""Progress lines with the time of each stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str) -> None:
    """One line for the person who waits; standard error, so that commands can be used in pipes."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print how long the block took once it succeeded."""
    started = time.monotonic()
    yield
    say(f"  {name:<28}{time.monotonic() - started:6.1f} s")
