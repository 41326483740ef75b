"""A supervised list-and-watch of labelled objects, which survives whatever the API server does."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from .client import Client
from .errors import ApiError, Gone, Retryable

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 30.0
#: Well above the silence after which a request is given up, so that an API server that is away ends no process.
SILENCE_LIMIT_SECONDS = 1800.0

Seen = Callable[[str, dict[str, Any]], None]
"""One object that was ADDED, MODIFIED or DELETED."""

Listed = Callable[[list[dict[str, Any]], int], None]
"""All objects that there are, at this resource version."""


class Watch:
    """The objects of one kind in one namespace (None: in all) that match a label selector.

    Every list replaces what was known (``listed``), so that nothing deleted meanwhile lives on; every event between
    lists goes to ``seen``. ``run`` never ends by itself.
    """

    def __init__(
        self,
        client: Client,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str,
        listed: Listed,
        seen: Seen,
    ) -> None:
        self.api_version = api_version
        self.kind = kind
        self.namespace = namespace
        self.synced = asyncio.Event()
        self._heard = asyncio.get_running_loop().time()
        self._client = client
        self._selector = label_selector
        self._listed = listed
        self._seen = seen
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """List, watch, and start over as often as it takes."""
        while True:
            try:
                await self._follow()
            except Gone:
                self._version = None
                await self._pause(None)
            except ApiError as error:
                logger.warning("watch of %s interrupted: %s", self.kind, error.message)
                await self._pause(error.retry_after if isinstance(error, Retryable) else None)

    def silence(self) -> float:
        """Seconds since the API server was last heard."""
        return asyncio.get_running_loop().time() - self._heard

    async def _follow(self) -> None:
        if self._version is None:
            objects, version = await self._client.list_with_version(
                self.api_version, self.kind, self.namespace, self._selector
            )
            self._listed(objects, int(version))
            self._version = version
            self._alive()
            self.synced.set()
        events = self._client.watch(
            self.api_version, self.kind, self.namespace, self._version, self._selector
        )
        async for event_type, body in events:
            self._version = body["metadata"]["resourceVersion"]
            self._alive()
            if event_type != "BOOKMARK":
                self._seen(event_type, body)

    def _alive(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._failures = 0

    async def _pause(self, wish: float | None) -> None:
        """Wait longer with each failure in a row, and not in step with other replicas."""
        longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        await asyncio.sleep(max(wish or 0.0, longest * random.uniform(0.5, 1.0)))
