"""Faults of an API server and of what stands before it, and seeded plans of when they happen."""

import random
from dataclasses import dataclass, field
from enum import Enum

LEASES = "/leases/"
EVENTS = "/events"


class Fault(Enum):
    """What happens to a request or to a watch."""

    NONE = "none"
    #: Answered in the API server's place: it never saw the request.
    CONFLICT = "409"
    GONE = "410"
    TOO_MANY = "429"
    ERROR = "500"
    UNAVAILABLE = "503"
    WEBHOOK = "webhook timed out"
    GATEWAY = "502 in HTML"
    REFUSED = "connection cut before"
    #: The API server has carried the request out, and nobody hears of it.
    DONE_AND_ERROR = "done, then 500"
    DONE_AND_CUT = "done, then cut"
    SLOW = "slow"
    STALLED = "stalled, then cut"
    #: Of watches.
    STREAM_CUT = "cut within a line"
    STREAM_ENDED = "ended"
    STREAM_GONE = "410 in the stream"
    STREAM_ERROR = "500 in the stream"
    STREAM_STALLED = "stream stalled, then cut"


READ_FAULTS = (
    Fault.TOO_MANY, Fault.ERROR, Fault.UNAVAILABLE, Fault.GATEWAY, Fault.REFUSED, Fault.DONE_AND_CUT, Fault.SLOW,
    Fault.STALLED, Fault.GONE,
)  # fmt: skip
WRITE_FAULTS = (
    Fault.CONFLICT, Fault.TOO_MANY, Fault.ERROR, Fault.UNAVAILABLE, Fault.WEBHOOK, Fault.GATEWAY, Fault.REFUSED,
    Fault.DONE_AND_ERROR, Fault.DONE_AND_ERROR, Fault.DONE_AND_CUT, Fault.DONE_AND_CUT, Fault.SLOW, Fault.STALLED,
)  # fmt: skip
WATCH_FAULTS = (
    Fault.GONE, Fault.ERROR, Fault.TOO_MANY, Fault.REFUSED, Fault.STREAM_CUT, Fault.STREAM_CUT, Fault.STREAM_ENDED,
    Fault.STREAM_GONE, Fault.STREAM_ERROR, Fault.STREAM_STALLED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a request that plans look at."""

    method: str
    path: str
    is_watch: bool

    @property
    def is_write(self) -> bool:
        """Whether it changes something; reviews of tokens change nothing."""
        return self.method != "GET" and "tokenreviews" not in self.path

    @property
    def is_work(self) -> bool:
        """Whether it is a write that matters to a resource."""
        return self.is_write and LEASES not in self.path and EVENTS not in self.path


@dataclass(frozen=True, slots=True)
class Stroke:
    """A fault with its times.

    Attributes:
        seconds: how long a request is held up, or after which time a fault strikes a stream.
        lines: the number of lines after which it strikes a stream, if they come earlier.
    """

    fault: Fault
    seconds: float = 0.0
    lines: int = 0


NOTHING = Stroke(Fault.NONE)


@dataclass
class FaultPlan:
    """Draws a fault for each request.

    Attributes:
        share: share of reads with a fault.
        write_share: the same of writes.
        watch_share: the same of watches.
        slow_seconds: longest time for which a slow request is held up.
        stall_seconds: how long a stalled one stands still.
        active: no faults while this is false.
        drawn: how often each fault was drawn.
    """

    seed: int
    share: float = 0.06
    write_share: float = 0.2
    watch_share: float = 0.5
    slow_seconds: float = 0.5
    stall_seconds: float = 3.0
    active: bool = True
    drawn: dict[Fault, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, request: Request) -> Stroke:
        """The fault of this request."""
        chance = self._random.random()
        share = self.watch_share if request.is_watch else self.write_share if request.is_write else self.share
        # A lease that is not renewed ends the process, which would hide all other faults.
        if LEASES in request.path:
            share /= 10
        if not self.active or chance >= share:
            return NOTHING
        choices = WATCH_FAULTS if request.is_watch else WRITE_FAULTS if request.is_write else READ_FAULTS
        fault = self._random.choice(choices)
        self.drawn[fault] = self.drawn.get(fault, 0) + 1
        return Stroke(fault, self._seconds(fault), self._random.randrange(6))

    def _seconds(self, fault: Fault) -> float:
        if fault in (Fault.STALLED, Fault.STREAM_STALLED):
            return self.stall_seconds
        if fault.value in ("slow", "webhook timed out"):
            return self._random.uniform(0, self.slow_seconds)
        return self._random.uniform(0, 10.0)
