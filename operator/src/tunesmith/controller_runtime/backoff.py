"""Exponential back-off with jitter: one formula for the work queue, the watches, kopf and the process's start.

Not tenacity's wait strategies: they want the state of a retried call, which a queue of keys does not have, and draw
from the global random generator.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with each failure in a row; a random half of each keeps clients from retrying in step.

    As an iterable it never ends.

    Attributes:
        first: seconds before the first retry, at most.
        longest: seconds that no delay exceeds.
        jitter: a number in [0, 1) for each delay.
    """

    first: float
    longest: float
    jitter: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        """The delay before the next try, after so many earlier failures in a row."""
        bound = min(self.longest, self.first * 2.0 ** min(failures, 32))
        return bound * (0.5 + 0.5 * self.jitter())

    def __iter__(self) -> Iterator[float]:
        return map(self.seconds, itertools.count())
