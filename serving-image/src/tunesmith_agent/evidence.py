"""Evidence about one version: its requests by their end, and sums over the clients that sent them.

A failed or abandoned answer is first undecided: when the engine of the pod dies or hangs, all its requests fail,
whatever version they asked for. Only a failure that the engine outlives counts against the version.
"""

from collections import OrderedDict, deque

from tunesmith_contract.agent import VersionCounters

#: Clients whose requests are told apart; of more, the one that was quiet longest counts as new when it returns.
MAX_KEYS = 2048


class KeySums:
    """Sums over sticky keys of a step: n requests of a key, f of them failed.

    Attributes:
        keys: number of keys.
        requests_squared: sum of n².
        failures_squared: sum of f².
        requests_failures: sum of n·f.
    """

    __slots__ = ("_counts", "failures_squared", "keys", "requests_failures", "requests_squared")

    def __init__(self) -> None:
        self.keys = self.requests_squared = self.failures_squared = self.requests_failures = 0
        self._counts: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def add(self, key: int | None, failed: bool) -> None:
        """Count one request; without a key it counts as one of a client of its own."""
        requests, failures = self._counts.pop(key, (0, 0)) if key is not None else (0, 0)
        self.keys += not requests
        self.requests_squared += 2 * requests + 1
        if failed:
            self.failures_squared += 2 * failures + 1
            self.requests_failures += requests + failures + 1
        else:
            self.requests_failures += failures
        if key is not None:
            self._counts[key] = requests + 1, failures + failed
            if len(self._counts) > MAX_KEYS:
                self._counts.popitem(last=False)

    def restart(self) -> None:
        """Begin a step: each key counts anew, the sums go on."""
        self._counts.clear()


class ErrorRow:
    """Errors of a version in a row, since its latest success, and the clients that saw them.

    Attributes:
        errors: number of errors; beyond ``MAX_ERRORS`` they are not counted.
    """

    #: Nobody asks for more.
    MAX_ERRORS = 100

    __slots__ = ("_by_key", "_squares", "errors")

    def __init__(self) -> None:
        self.errors = self._squares = 0
        self._by_key: dict[int, int] = {}

    def add(self, key: int | None) -> None:
        """Count one error; without a key it is one of a client of its own."""
        if self.errors >= self.MAX_ERRORS:
            return
        self.errors += 1
        before = self._by_key.get(key, 0) if key is not None else 0
        self._squares += 2 * before + 1
        if key is not None:
            self._by_key[key] = before + 1

    def end(self) -> None:
        """End the row: a request was answered."""
        if self.errors:
            self.errors = self._squares = 0
            self._by_key.clear()

    @property
    def clients(self) -> float:
        """Effective number of clients, (sum f)² / sum f² for f errors of each: their number if all saw as many."""
        return self.errors**2 / self._squares if self.errors else 0.0


class VersionEvidence:
    """Requests of one version since the agent started, by their end; numbers never fall.

    Attributes:
        requests: answered, errors and abandoned.
        errors: failures that the engine outlived.
        abandoned: left by the client after a long wait for a token.
        engine_lost: failures that the engine did not outlive, and requests that found no engine.
        refused: requests that the engine refused since it does not have the version.
    """

    __slots__ = ("_sums", "_undecided", "abandoned", "engine_lost", "errors", "refused", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = self.abandoned = self.engine_lost = self.refused = 0
        self._sums = KeySums()
        self._undecided: deque[tuple[float, int | None, bool]] = deque()

    def count_answer(self, key: int | None) -> None:
        """Count a request that was answered."""
        self.requests += 1
        self._sums.add(key, failed=False)

    def count_failure(self, key: int | None, time: float) -> None:
        """Count a 5xx answer or a broken stream, which is decided later.

        Args:
            time: seconds by the loop's clock.
        """
        self._undecided.append((time, key, False))

    def count_abandoned(self, key: int | None, time: float) -> None:
        """Count a request whose client left after a long wait, which is decided later.

        Args:
            time: seconds by the loop's clock.
        """
        self._undecided.append((time, key, True))

    def decide(self, before: float) -> bool:
        """Count undecided failures against the version, as the engine lives; True if there were any.

        Args:
            before: only failures up to this time by the loop's clock.
        """
        decided = False
        while self._undecided and self._undecided[0][0] <= before:
            _, key, abandoned = self._undecided.popleft()
            self.requests += 1
            self.abandoned += abandoned
            self.errors += not abandoned
            self._sums.add(key, failed=True)
            decided = True
        return decided

    def lose_engine(self) -> None:
        """Count undecided failures as lost with the engine."""
        self.engine_lost += len(self._undecided)
        self._undecided.clear()

    def restart_keys(self) -> None:
        """Begin a step of a rollout."""
        self._sums.restart()

    def to_counters(self, alias: str, digest: str) -> VersionCounters:
        """Counters for the operator."""
        return VersionCounters(
            alias=alias,
            digest=digest,
            requests=self.requests,
            errors=self.errors,
            abandoned=self.abandoned,
            engine_lost=self.engine_lost,
            refused=self.refused,
            keys=self._sums.keys,
            requests_squared=self._sums.requests_squared,
            failures_squared=self._sums.failures_squared,
            requests_failures=self._sums.requests_failures,
        )
