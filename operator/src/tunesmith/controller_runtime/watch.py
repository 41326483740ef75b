"""A supervised list-and-watch of labeled objects; it continues after every failure of the API server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from tunesmith.manifests.objects import Body

from .backoff import Backoff
from .client import Client
from .errors import ApiError, Gone, Retryable

logger = logging.getLogger(__name__)

BACKOFF = Backoff(first=0.2, longest=30.0)
#: A watch request that ends sooner without an event counts as a failure: a proxy or a server that goes down does that.
SHORT_SECONDS = 1.0
#: Well above the silence after which a request is given up, so that an API server that is away ends no process.
SILENCE_LIMIT_SECONDS = 1800.0

OnEvent = Callable[[str, Body], None]
"""Receiver of one object that was ADDED, MODIFIED or DELETED."""

OnList = Callable[[Sequence[Body], int], None]
"""Receiver of all objects at a resource version."""


class Watch:
    """The objects of one kind in one namespace (None: in all) that match a label selector.

    Every list replaces what was known (``on_list``), so that nothing deleted meanwhile remains; every event between
    lists goes to ``on_event``. ``run`` never ends by itself.

    Args:
        sleep: waits between requests.
    """

    def __init__(
        self,
        client: Client,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str,
        on_list: OnList,
        on_event: OnEvent,
        backoff: Backoff = BACKOFF,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.api_version = api_version
        self.kind = kind
        self.namespace = namespace
        self.synced = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._last_answer = self._clock()
        self._client = client
        self._selector = label_selector
        self._on_list = on_list
        self._on_event = on_event
        self._backoff = backoff
        self._sleep = sleep
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """List and watch without end, and start over after a failure."""
        while True:
            asked_wait = 0.0
            try:
                if await self._follow():
                    self._failures = 0
                    continue
            except Gone:
                self._version = None
            except ApiError as error:
                logger.warning("watch of %s interrupted: %s", self.kind, error.message)
                asked_wait = (error.retry_after if isinstance(error, Retryable) else None) or 0.0
            delay = max(asked_wait, self._backoff.seconds(self._failures))
            self._failures += 1
            await self._sleep(delay)

    def silence(self) -> float:
        """Seconds since the API server's last answer."""
        return self._clock() - self._last_answer

    async def _follow(self) -> bool:
        """List if necessary, then run one watch request; returns False if that ended without an event."""
        if self._version is None:
            objects, version = await self._client.list_with_version(
                self.api_version, self.kind, self.namespace, self._selector
            )
            self._on_list(objects, int(version))
            self._version = version
            self._last_answer = self._clock()
            self.synced.set()
        started, received = self._clock(), False
        events = self._client.watch(
            self.api_version, self.kind, self.namespace, self._version, self._selector
        )
        async for event_type, body in events:
            received = True
            self._version = body["metadata"]["resourceVersion"]
            self._last_answer = self._clock()
            self._failures = 0
            if event_type != "BOOKMARK":
                self._on_event(event_type, body)
        return received or self._clock() - started >= SHORT_SECONDS
