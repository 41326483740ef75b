"""Clients and their limits on this pod: admission of requests, and what each of them has used."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunesmith_agent.http.messages import Refusal
from tunesmith_agent.metrics import Usage

from .buckets import Bucket
from .entries import Budget, Entry
from .ledger import Account, Ledger
from .periods import Calendar, seconds_to_end
from .pod_shares import PodShares
from .reservation import estimate_prompt, reserve

#: Pods that share the limits before the operator has said how many there are.
UNKNOWN_PODS = 16

_LONGEST_RETRY = 3600

#: Begin of an event of a stream.
_EVENT_MARK = b"data:"

#: Response headers that tell a client of its limits.
LIMIT_HEADERS = (
    b"x-should-retry",
    *(
        b"x-ratelimit-%b-%b" % (what, kind)
        for what in (b"limit", b"remaining", b"reset")
        for kind in (b"requests", b"tokens")
    ),
)


@dataclass(slots=True)
class Shared:
    """What all clients of the pod share.

    Attributes:
        clock: seconds by a clock that never jumps.
        wall_clock: POSIX time.
        is_connected: tells if the operator is connected.
        shares: how the pods divide the limits.
    """

    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    is_connected: Callable[[], bool]
    ledger: Ledger
    shares: PodShares = field(default_factory=lambda: PodShares(UNKNOWN_PODS))
    calendar: Calendar = field(default_factory=Calendar)

    @property
    def pods(self) -> int:
        """Number of pods that share the limits."""
        return self.shares.pods


@dataclass(slots=True)
class ClientCounts:
    """Requests and tokens of one client since the agent started.

    Attributes:
        requests: requests that were sent to the engine.
        refusals: requests that were refused, by the limit: ``requests``, ``tokens`` or ``budget``.
    """

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    refusals: dict[str, int] = field(default_factory=dict)


class Client:
    """One client.

    Attributes:
        name: entry of the Secret.
        reserved: tokens of requests in progress, of a client with a budget.
    """

    __slots__ = (
        "_default_max_tokens",
        "_entry",
        "_header_lines",
        "_requests",
        "_shared",
        "_tokens",
        "_weight",
        "adapters",
        "counts",
        "name",
        "reserved",
    )

    def __init__(self, name: str, entry: Entry, shared: Shared) -> None:
        self.name = name
        self.counts = ClientCounts()
        self.reserved = 0
        self._shared = shared
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._weight = 1.0
        self.update(entry)

    def update(self, entry: Entry) -> None:
        """Take over another entry; what was used stays used."""
        self._entry = entry
        limit, default = entry.tokens_per_minute, entry.default_max_tokens
        # Half of a small limit, so that a request that says nothing can be admitted.
        self._default_max_tokens = default if limit is None else max(1, min(default, limit // 2))
        self.adapters = None if entry.adapters is None else frozenset(entry.adapters)
        weight = self._shared.shares.weight(self.adapters)
        # A pod that becomes a home has more from now on; what another one has used of that is not given again.
        growth, self._weight = max(1.0, weight / self._weight), weight
        self._requests = self._resized(self._requests, entry.requests_per_minute, growth)
        self._tokens = self._resized(self._tokens, entry.tokens_per_minute, growth)
        self._header_lines = b"".join(
            b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%ds\r\n"
            % (kind, bucket.per_minute, kind, kind)
            for kind, bucket in ((b"requests", self._requests), (b"tokens", self._tokens))
            if bucket is not None
        )

    def share_limits(self) -> None:
        """Take over another division among the pods."""
        self.update(self._entry)

    def _resized(self, bucket: Bucket | None, limit: int | None, growth: float) -> Bucket | None:
        if limit is None:
            return None
        now, share = self._shared.clock(), limit * self._weight / self._shared.pods
        if bucket is None:
            return Bucket(share, now)
        bucket.fill(now)
        bucket.resize(share, growth)
        return bucket

    def may_use(self, model: str) -> bool:
        """True if the client may ask for this name: an alias, one of its versions, or the base model."""
        return self.adapters is None or model.partition("@")[0] in self.adapters

    @property
    def budget(self) -> Budget | None:
        """Its budget."""
        return self._entry.budget

    def admit(self, path: bytes, body: dict[str, Any], size: int) -> "Charge | Refusal":
        """Take a request from the limits, or refuse it. The body gets a limit of the answer if it needs one.

        Args:
            path: path of the request.
            body: the request, which is sent next.
            size: bytes of the body.
        """
        requests, tokens, reserved = self._requests, self._tokens, 0
        now = self._shared.clock()
        if requests is not None:
            requests.fill(now)
        if tokens is not None:
            tokens.fill(now)
        if tokens is not None or self._entry.budget is not None:
            reservation = reserve(path, body, size, self._default_max_tokens)
            reserved = reservation.prompt + reservation.answer
            if (refusal := self._check_tokens(reserved)) is not None:
                return refusal
            if reservation.default is not None:
                body.update((reservation.default,))
        if requests is not None:
            if requests.level < 1 and (wait := requests.wait(1)):
                return self._refuse_rate("requests", wait, 1)
            requests.take(1)
        if tokens is not None:
            tokens.take(reserved)
        self.reserved += reserved
        self.counts.requests += 1
        return Charge(self, reserved, size, self._rate_headers(), _tokens_per_event(body))

    def settle(self, reserved: int, prompt: int, answer: int) -> None:
        """Replace a reservation by the tokens that were used."""
        self.reserved -= reserved
        self.counts.prompt_tokens += prompt
        self.counts.answer_tokens += answer
        used = prompt + answer
        if self._tokens is not None:
            if used > reserved:
                self._tokens.fill(self._shared.clock())
            self._tokens.give(reserved - used)
        if self._entry.budget is not None and used:
            self._account(self._entry.budget).own += used

    def used(self) -> int:
        """Tokens of its budget that are known to be used in the current period."""
        return self._account(self._entry.budget).used if self._entry.budget else 0

    # -- inside

    def _account(self, budget: Budget) -> Account:
        shared = self._shared
        return shared.ledger.account(self.name, shared.calendar.name(budget.period, shared.wall_clock()))

    def _check_tokens(self, reserved: int) -> Refusal | None:
        """Refusal of a request that the budget or the limit of tokens does not allow now."""
        budget, limit = self._entry.budget, self._entry.tokens_per_minute
        if budget is not None:
            account = self._account(budget)
            left = account.left(budget.tokens, self._shared.pods, self._shared.is_connected()) - self.reserved
            if left < reserved:
                return self._refuse_budget(budget, account, reserved)
        if limit is None or self._tokens is None:
            return None
        if reserved > limit:
            self._count_refusal("tokens")
            message = (
                f"The request may take {reserved} tokens, prompt and answer together, and your limit is {limit} per "
                "minute: lower max_tokens, or send less."
            )
            return Refusal(429, message, kind="tokens", code="rate_limit_exceeded", headers=_NO_RETRY)
        if self._tokens.level < reserved and (wait := self._tokens.wait(reserved)):
            return self._refuse_rate("tokens", wait, reserved)
        return None

    def _refuse_rate(self, kind: str, wait: float, asked: int) -> Refusal:
        self._count_refusal(kind)
        limit = self._entry.tokens_per_minute if kind == "tokens" else self._entry.requests_per_minute
        seconds = _retry_seconds(wait)
        what = f"The request may take {asked} tokens" if kind == "tokens" else "Too many requests"
        pods = self._shared.pods
        message = (
            f"{what}; your limit is {limit} {kind} per minute, over {pods} pods. Try again in {seconds} s."
        )
        headers = b"retry-after: %d\r\n%b" % (seconds, self._rate_headers())
        return Refusal(429, message, kind=kind, code="rate_limit_exceeded", headers=headers)

    def _refuse_budget(self, budget: Budget, account: Account, reserved: int) -> Refusal:
        self._count_refusal("budget")
        seconds = math.ceil(seconds_to_end(budget.period, self._shared.wall_clock()))
        message = (
            f"Your budget is {budget.tokens} tokens per {budget.period.lower()} (UTC). {account.used} are used and "
            f"{self.reserved} reserved by requests in progress; this one may take {reserved}. The next period begins "
            f"in {seconds} s."
        )
        headers = b"retry-after: %d\r\n%b" % (seconds, _NO_RETRY)
        return Refusal(429, message, kind="insufficient_quota", code="insufficient_quota", headers=headers)

    def _count_refusal(self, limit: str) -> None:
        self.counts.refusals[limit] = self.counts.refusals.get(limit, 0) + 1

    def _rate_headers(self) -> bytes:
        """OpenAI's headers, with this pod's share of the limits."""
        requests, tokens = self._requests, self._tokens
        if requests is not None and tokens is not None:
            return self._header_lines % (requests.state() + tokens.state())
        bucket = requests or tokens
        return b"" if bucket is None else self._header_lines % bucket.state()


class Charge:
    """One admitted request, until it is known what it used.

    Attributes:
        headers: header lines for the answer.
    """

    __slots__ = ("_client", "_events", "_piece_end", "_reserved", "_size", "_tokens_per_event", "headers")

    def __init__(
        self, client: Client, reserved: int, size: int, headers: bytes, tokens_per_event: int = 1
    ) -> None:
        self._client = client
        self._reserved = reserved
        self._size = size
        self._events = 0
        self._piece_end = b""
        self._tokens_per_event = tokens_per_event
        self.headers = headers

    def count_events(self, data: bytes) -> None:
        """Count the events in a piece of a stream."""
        # The mark of an event may be cut in two.
        data = self._piece_end + data
        self._events += data.count(_EVENT_MARK)
        self._piece_end = data[1 - len(_EVENT_MARK) :]

    def settle(self, usage: Usage | None, *, answered: bool, left: bool = False) -> None:
        """Replace the reservation by what was used; call it once.

        Without the engine's count, an event of a stream counts as the tokens that it may have.

        Args:
            usage: tokens by the engine's count; None: it has not come.
            answered: the engine answered to the end, with a status below 400.
            left: the client left while the engine worked on it.
        """
        if usage is not None:
            prompt, answer = usage.prompt, usage.generated
        else:
            prompt, answer = estimate_prompt(self._size), self._events * self._tokens_per_event
            if self._reserved and self._tokens_per_event > 1:
                answer = min(answer, max(0, self._reserved - prompt))
            if not answer and left:
                # Nobody knows how far the engine came.
                answer = max(0, self._reserved - prompt)
            elif not answer and not answered:
                prompt = 0
        self._client.settle(self._reserved, prompt, answer)


#: Makes OpenAI's clients give up at once instead of trying again.
_NO_RETRY = b"x-should-retry: false\r\n"


def _tokens_per_event(body: dict[str, Any]) -> int:
    """Most tokens in an event of the stream that a request asks for."""
    if "stream_interval" not in body:
        return 1
    interval = body["stream_interval"]
    return interval if isinstance(interval, int) and interval > 0 else 1


def _retry_seconds(wait: float) -> int:
    return min(max(1, math.ceil(wait)), _LONGEST_RETRY)
