"""What the tests hold in a process of its own; as a program it holds an object until it is ended.

``python isolated_counter.py`` prints one JSON object of what it saw; with ``wait`` it waits after that.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith_data.failures import DataError, StageError, describe
from tunesmith_data.prepare.subprocess_isolation import IsolatedObject, call_isolated, hold_isolated


@dataclass
class Tally:
    """Counts what it is told."""

    total: int = 0

    def add(self, number: int) -> int:
        """The sum so far."""
        self.total += number
        return self.total

    def look(self) -> dict[str, object]:
        """Where it lives, and whether torch could be loaded there."""
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "torch": importlib.util.find_spec("torch") is not None,
        }

    def refuse(self) -> None:
        """Raise what the data's author has to read."""
        raise DataError("WrongRow", "row 3 is wrong")

    def die(self) -> None:
        """End as the kernel ends a process that takes too much memory."""
        os.kill(os.getpid(), 9)


def main() -> None:
    """Use an object that is held apart."""
    with hold_isolated(Tally, 1) as tally:
        sums = [each.result() for each in [tally.submit(Tally.add, number) for number in (1, 2, 3)]]
        seen = tally.submit(Tally.look).result() | {"here": os.getpid(), "sums": sums}
        seen["loaded"] = call_isolated(importlib.util.find_spec, "torch") is not None
        _say(seen | {"errors": [_error(tally, Tally.refuse)]})
        if "wait" in sys.argv:
            time.sleep(600)
        _say(_error(tally, Tally.die))


def _say(seen: object) -> None:
    sys.stdout.write(f"{json.dumps(seen)}\n")
    sys.stdout.flush()


def _error(tally: IsolatedObject[Tally], method: Callable[[Tally], None]) -> list[str]:
    try:
        tally.submit(method).result()
    except (StageError, RuntimeError) as error:
        failure = describe(error)
        return [failure.category, failure.reason, failure.message]
    return []


if __name__ == "__main__":
    main()
