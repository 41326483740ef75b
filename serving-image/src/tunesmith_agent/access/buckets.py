"""Token buckets: limits per minute that may be used in bursts, and are kept on average."""

import math

MINUTE = 60.0

#: Rounding of sums of floating-point numbers, which must not make a client wait.
_ROUNDING = 1e-6


class Bucket:
    """Bucket that holds what may be taken in a minute, and fills evenly.

    More than it holds can be taken when it is full. It then owes the rest, and nothing can be taken until that is
    filled up: on average no more is taken than fills in.

    Fill it before anything else is done with it, but for giving back.

    Attributes:
        per_minute: what it holds, and what fills in within a minute.
        level: what could be taken when it was filled last; below 0 what it owes.
    """

    __slots__ = ("_at", "level", "per_minute")

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = self.level = per_minute
        self._at = now

    def fill(self, now: float) -> None:
        """Add what has come in since it was filled last."""
        level = self.level + (now - self._at) * self.per_minute / MINUTE
        self.level = level if level < self.per_minute else self.per_minute
        self._at = now

    def resize(self, per_minute: float, growth: float = 1.0) -> None:
        """Hold and fill in another amount from now on: it stays as full as it is, and what it owes stays.

        Args:
            growth: factor of what it holds by which it does not become fuller: that part has yet to fill in.
        """
        if self.level > 0:
            self.level *= per_minute / self.per_minute / growth
        self.per_minute = per_minute

    def wait(self, amount: float) -> float:
        """Seconds until this amount can be taken; 0 if it can be now."""
        missing = (amount if amount < self.per_minute else self.per_minute) - self.level
        return missing * MINUTE / self.per_minute if missing > _ROUNDING else 0.0

    def take(self, amount: float) -> None:
        """Take an amount."""
        self.level -= amount

    def give(self, amount: float) -> None:
        """Give back what was taken and not used; a negative amount is taken in addition, after it was filled.

        What is more than it holds is gone when it is filled next.
        """
        self.level += amount

    def state(self) -> tuple[int, int]:
        """What can be taken, and the seconds until it is full, both as whole numbers."""
        level, per_minute = self.level, self.per_minute
        return int(level) if level > 0 else 0, math.ceil((per_minute - level) * MINUTE / per_minute)
