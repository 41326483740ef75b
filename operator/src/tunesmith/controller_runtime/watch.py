"""A supervised list-and-watch of labeled objects; it continues after every failure of the API server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

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


class Listing(Protocol):
    """Receiver of all objects at a resource version, page by page."""

    def add(self, bodies: Iterable[Body], version: int) -> None:
        """Take over one page of the list that was made at this version."""
        ...

    def end(self) -> None:
        """Drop what no page had."""
        ...


BeginList = Callable[[bool], Listing]
"""Maker of the receiver of a list; true when the API server's versions went back, so that older ones now count."""


class Watch:
    """The objects of one kind in one namespace (None: in all) that match a label selector.

    Every list replaces what was known (``begin_list``), so that nothing deleted meanwhile remains; every event between
    lists goes to ``on_event``. ``run`` never ends by itself.

    A server whose etcd was restored from a backup would stay silent until its versions have caught up. So each watch
    request but the first begins with the server's present version: where that is lower than the last one that was
    seen, everything is listed anew. Where versions have caught up, somebody else has to tell (``list_anew``).

    Args:
        sleep: waits between requests.

    Attributes:
        synced: set while the objects that are known are those of the API server.
        on_went_back: called when this watch is the one that has noticed it.
        on_end: called at the end of each watch request, whatever has ended it: the API server may be another one since.
    """

    def __init__(
        self,
        client: Client,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str,
        begin_list: BeginList,
        on_event: OnEvent,
        backoff: Backoff = BACKOFF,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.api_version = api_version
        self.kind = kind
        self.namespace = namespace
        self.synced = asyncio.Event()
        self.on_went_back: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self._clock = asyncio.get_running_loop().time
        self._last_answer = self._clock()
        self._client = client
        self._selector = label_selector
        self._begin_list = begin_list
        self._on_event = on_event
        self._backoff = backoff
        self._sleep = sleep
        self._version: int | None = None
        self._last_version: int | None = None
        self._went_back = False
        self._told = asyncio.Event()
        self._failures = 0

    async def run(self) -> None:
        """List and watch without end, and start over after a failure."""
        while True:
            asked_wait = 0.0
            try:
                if await self._follow_until_told():
                    self._failures = 0
                    self.on_end()
                    continue
            except Gone:
                self._version = None
            except ApiError as error:
                logger.warning("watch of %s interrupted: %s", self.kind, error.message)
                asked_wait = (error.retry_after if isinstance(error, Retryable) else None) or 0.0
            except Exception:
                # One odd answer must not end the process, again and again.
                logger.exception("watch of %s failed", self.kind)
            self.on_end()
            delay = max(asked_wait, self._backoff.seconds(self._failures))
            self._failures += 1
            await self._sleep(delay)

    def list_anew(self) -> None:
        """List now, whatever the versions: the API server's data went back."""
        if not self._went_back:
            self.synced.clear()
            self._told.set()

    def silence(self) -> float:
        """Seconds since the API server's last answer."""
        return self._clock() - self._last_answer

    async def _follow_until_told(self) -> bool:
        """The same as ``_follow``, but end it for ``list_anew``."""
        if self._told.is_set():
            self._told.clear()
            self._forget_version()
        following = asyncio.ensure_future(self._follow())
        told = asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait((following, told), return_when=asyncio.FIRST_COMPLETED)
            return await following if following.done() else True
        finally:
            following.cancel()
            told.cancel()
            await asyncio.gather(following, told, return_exceptions=True)

    async def _follow(self) -> bool:
        """List if necessary, then run one watch request; returns False if that ended without an event."""
        if self._last_version is not None:
            await self._compare_versions(self._last_version)
        version = await self._list() if self._version is None else self._version
        started, received = self._clock(), False
        events = self._client.watch(self.api_version, self.kind, self.namespace, version, self._selector)
        async for event_type, body in events:
            received = True
            self._note_version(int(body["metadata"]["resourceVersion"]))
            self._failures = 0
            if event_type != "BOOKMARK":
                self._on_event(event_type, body)
        return received or self._clock() - started >= SHORT_SECONDS

    async def _compare_versions(self, last: int) -> None:
        current = await self._client.current_version(self.api_version, self.kind, self.namespace)
        self._last_answer = self._clock()
        if current < last:
            logger.warning(
                "the API server went back from version %d to %d: %s is listed anew", last, current, self.kind
            )
            self._forget_version()
            self.on_went_back()

    def _forget_version(self) -> None:
        self._version, self._last_version, self._went_back = None, None, True
        self.synced.clear()

    async def _list(self) -> int:
        async with self._client.lists_of_watches:
            listing, version = self._begin_list(self._went_back), 0
            pages = self._client.pages(self.api_version, self.kind, self.namespace, self._selector)
            async for bodies, version in pages:
                listing.add(bodies, version)
                self._last_answer = self._clock()
            listing.end()
        self._went_back = False
        self._note_version(version)
        self.synced.set()
        return version

    def _note_version(self, version: int) -> None:
        self._version = self._last_version = version
        self._last_answer = self._clock()
