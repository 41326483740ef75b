"""Progress updates of a stage, pushed to the operator."""

import logging
import os
import ssl
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tunesmith_contract.progress import (
    CA_CERT_ENV,
    PART,
    SERVER_URL_ENV,
    TOKEN_ENV,
    ProgressMetric,
    ProgressUpdate,
    TrainerStatus,
)

log = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 5.0
#: Length of the last part of a stage whose speed tells the time left.
SPEED_SECONDS = 120.0
_TIMEOUT_SECONDS = 5.0


class ProgressReporter:
    """Sender of a stage's progress to the operator, every few seconds; errors never fail the run.

    Args:
        environment: where the server's URL, authority and token file are named; without a URL nothing is
            sent.
        clock: monotonic seconds.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = environment.get(SERVER_URL_ENV)
        self._authority = environment.get(CA_CERT_ENV)
        self._token_file = environment.get(TOKEN_ENV)
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._last = float("-inf")
        self._part: object = None

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Report that ``done`` of ``total`` are done; the first, last and each part's first are always sent.

        The time left is estimated from the speed of the last minutes, since the first update: when earlier work was
        done is not known.
        """
        if self._url is None:
            return
        now = self._clock()
        self._see(now, done)
        soon = now - self._last < SECONDS_BETWEEN_UPDATES
        if done < total and soon and metrics.get(PART) == self._part:
            return
        self._last, self._part = now, metrics.get(PART)
        start, before = self._seen[0]
        remaining = (now - start) / (done - before) * (total - done) if done > before else None
        self._push(self._url, done, total, remaining, metrics)

    def _see(self, now: float, done: int) -> None:
        """Keep the updates of the last part, and one from before it."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= SPEED_SECONDS:
            self._seen.popleft()

    def announce(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Report now, without rate limit; an earlier attempt may have done part of the work."""
        if self._url is not None:
            self._push(self._url, done, total, None, metrics)

    def _push(
        self,
        url: str,
        done: int,
        total: int,
        remaining: float | None,
        metrics: Mapping[str, float | int | str],
    ) -> None:
        status = TrainerStatus(
            last_updated_time=datetime.now(UTC),
            progress_percentage=100 * done // max(total, 1),
            estimated_remaining_seconds=None if remaining is None else int(remaining),
            metrics=tuple(
                ProgressMetric(name=name, value=str(value))
                for name, value in {"current_step": done, "total_steps": total, **metrics}.items()
            ),
        )
        self._send(url, ProgressUpdate(trainer_status=status))

    def _send(self, url: str, update: ProgressUpdate) -> None:
        try:
            headers = {"Content-Type": "application/json"}
            if self._token_file:
                headers["Authorization"] = f"Bearer {Path(self._token_file).read_text().strip()}"
            body = update.to_json().encode()
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            context = ssl.create_default_context(cafile=self._authority) if self._authority else None
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context):
                pass
        except (OSError, ValueError) as error:
            log.info("progress could not be sent: %s", error)
