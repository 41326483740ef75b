"""Periods of budgets in UTC."""

from datetime import UTC, datetime, timedelta

from .entries import Period


class Calendar:
    """Names of the current periods, computed once for each day."""

    __slots__ = ("_end", "_names", "_start")

    def __init__(self) -> None:
        self._start = self._end = 0.0
        self._names: dict[Period, str] = {}

    def name(self, period: Period, time: float) -> str:
        """Name of the period at this POSIX time: ``2030-01-15`` for a day, ``2030-01`` for a month."""
        if not self._start <= time < self._end:
            midnight = _midnight(time)
            self._start, self._end = midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()
            self._names = {Period.DAY: f"{midnight:%Y-%m-%d}", Period.MONTH: f"{midnight:%Y-%m}"}
        return self._names[period]


def seconds_to_end(period: Period, time: float) -> float:
    """Seconds from this POSIX time until the next period begins."""
    following = _midnight(time) + timedelta(days=1)
    while period is Period.MONTH and following.day != 1:
        following += timedelta(days=1)
    return following.timestamp() - time


def _midnight(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
