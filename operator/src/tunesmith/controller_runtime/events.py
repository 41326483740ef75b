"""Kubernetes events: published in the background; repetitions of an event only raise its count."""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tunesmith.manifests.objects import Body

from .client import Client
from .errors import ApiError
from .metrics import Metrics

logger = logging.getLogger(__name__)

API_VERSION = "events.k8s.io/v1"
CONTROLLER = "tunesmith.dev/operator"
QUEUE = 1000
REMEMBERED = 4096
#: Bytes: the API server refuses a longer note.
MAX_NOTE = 1024
#: The same event again within this time is counted, not published.
REPEAT_SECONDS = 30.0
#: Between two events: writes of children come first.
PACE_SECONDS = 0.01


class Event(Protocol):
    """Content of an event."""

    @property
    def reason(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def type(self) -> str: ...


@dataclass(slots=True)
class _Occurrences:
    """Number of an event's occurrences, and time of its last publication."""

    count: int
    published_at: float


class EventRecorder:
    """Publisher of events; never blocks: an event that does not fit into the queue is dropped and counted.

    Args:
        instance: the operator's pod.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        metrics: Metrics,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._instance = instance
        self._clock = clock
        self._occurrences: OrderedDict[str, _Occurrences] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Body, int]] = asyncio.Queue(QUEUE)

    def record(self, body: Body, event: Event) -> None:
        """Publish the event about this resource, soon."""
        name = _event_name(body, event)
        occurrences = self._occurrences.setdefault(name, _Occurrences(0, float("-inf")))
        self._occurrences.move_to_end(name)
        if len(self._occurrences) > REMEMBERED:
            self._occurrences.popitem(last=False)
        occurrences.count += 1
        if self._clock() - occurrences.published_at < REPEAT_SECONDS:
            return
        occurrences.published_at = self._clock()
        manifest = build_event(body, event, name, self._instance, datetime.now(UTC))
        try:
            self._queue.put_nowait((manifest, occurrences.count))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Publish recorded events, without end."""
        while True:
            manifest, count = await self._queue.get()
            try:
                await self._publish(manifest, count)
            except ApiError as error:
                self._metrics.events_dropped.inc()
                logger.debug("event %s not published: %s", manifest["metadata"]["name"], error.message)
            except Exception:
                # One odd event must not end the process.
                self._metrics.events_dropped.inc()
                logger.exception("event %s not published", manifest["metadata"]["name"])
            await asyncio.sleep(PACE_SECONDS)

    async def flush(self, seconds: float) -> None:
        """Publish the queued events, within a time."""
        with contextlib.suppress(TimeoutError, ApiError):
            async with asyncio.timeout(seconds):
                while not self._queue.empty():
                    await self._publish(*self._queue.get_nowait())

    async def _publish(self, manifest: Body, count: int) -> None:
        """Create the first occurrence; count up for a later one, unless the API server has removed the first."""
        if count > 1 and await self._count_up(manifest, count):
            return
        if await self._client.create(manifest) is None:
            await self._count_up(manifest, max(count, 2))

    async def _count_up(self, manifest: Body, count: int) -> bool:
        series = {"count": count, "lastObservedTime": manifest["eventTime"]}
        metadata = manifest["metadata"]
        patched = await self._client.patch(
            API_VERSION, "Event", metadata["namespace"], metadata["name"], {"series": series}
        )
        return patched is not None


def build_event(body: Body, event: Event, name: str, instance: str, now: datetime) -> Body:
    """The ``events.k8s.io/v1`` object."""
    metadata = body["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": event.reason,
        "type": event.type,
        "note": event.message.encode()[:MAX_NOTE].decode(errors="ignore"),
        "regarding": {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
    }


def _event_name(body: Body, event: Event) -> str:
    """A name that stays the same for the same event of the same resource, also after a restart."""
    metadata = body["metadata"]
    content = "\0".join((metadata["uid"], event.type, event.reason, event.message))
    return f"{metadata['name']}.{hashlib.sha256(content.encode()).hexdigest()[:16]}"
