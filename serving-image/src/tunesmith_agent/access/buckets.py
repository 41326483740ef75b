"""Token buckets: limits per minute that may be used in bursts, and are kept on average."""

MINUTE = 60.0

#: Rounding of sums of floating-point numbers, which must not make a client wait.
_ROUNDING = 1e-6


class Bucket:
    """Bucket that holds what may be taken in a minute, and fills evenly.

    More than it holds can be taken when it is full. It then owes the rest, and nothing can be taken until that is
    filled up: on average no more is taken than fills in.

    Attributes:
        per_minute: what it holds, and what fills in within a minute.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = self._level = per_minute
        self._at = now

    def resize(self, per_minute: float, now: float) -> None:
        """Hold and fill in another amount from now on: it stays as full as it is, and what it owes stays."""
        if self.left(now) > 0:
            self._level *= per_minute / self.per_minute
        self.per_minute = per_minute

    def left(self, now: float) -> float:
        """What can be taken now; below 0 what it owes."""
        filled = self._level + (now - self._at) * self.per_minute / MINUTE
        self._level = filled if filled < self.per_minute else self.per_minute
        self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until this amount can be taken; 0 if it can be now."""
        missing = min(amount, self.per_minute) - self.left(now)
        return missing * MINUTE / self.per_minute if missing > _ROUNDING else 0.0

    def seconds_to_full(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.per_minute - self.left(now)) * MINUTE / self.per_minute

    def take(self, amount: float, now: float) -> None:
        """Take an amount."""
        self._level = self.left(now) - amount

    def give(self, amount: float, now: float) -> None:
        """Give back what was taken and not used; a negative amount is taken in addition."""
        self._level = min(self.left(now) + amount, self.per_minute)
