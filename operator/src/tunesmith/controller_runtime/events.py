"""Kubernetes events: published in the background, and the same one told once, with a count."""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from .client import Client
from .errors import ApiError
from .metrics import Metrics

logger = logging.getLogger(__name__)

API_VERSION = "events.k8s.io/v1"
CONTROLLER = "tunesmith.dev/operator"
QUEUE = 1000
REMEMBERED = 4096
MAX_NOTE = 1024
#: The same event again within this time only counts.
REPEAT_SECONDS = 30.0
#: Between two events: children come first.
PACE_SECONDS = 0.01


class Event(Protocol):
    """What an event says about its resource."""

    @property
    def reason(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def type(self) -> str: ...


@dataclass(slots=True)
class _Told:
    """An event that was published: how often it happened, and when it was last published."""

    count: int
    published: float


class EventRecorder:
    """Publishes events; never in the way: what does not fit into the queue is dropped and counted.

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
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._queue: asyncio.Queue[tuple[dict[str, Any], int]] = asyncio.Queue(QUEUE)

    def record(self, body: Mapping[str, Any], event: Event) -> None:
        """Publish the event about this resource, soon."""
        name = _name(body, event)
        told = self._told.setdefault(name, _Told(0, float("-inf")))
        self._told.move_to_end(name)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        told.count += 1
        if self._clock() - told.published < REPEAT_SECONDS:
            return
        told.published = self._clock()
        manifest = build_event(body, event, name, self._instance, datetime.now(UTC))
        try:
            self._queue.put_nowait((manifest, told.count))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Publish what is recorded, for ever."""
        while True:
            manifest, count = await self._queue.get()
            try:
                await self._publish(manifest, count)
            except ApiError as error:
                self._metrics.events_dropped.inc()
                logger.debug("event %s not published: %s", manifest["metadata"]["name"], error.message)
            await asyncio.sleep(PACE_SECONDS)

    async def flush(self, seconds: float) -> None:
        """Publish what is left, within a time."""
        with contextlib.suppress(TimeoutError, ApiError):
            async with asyncio.timeout(seconds):
                while not self._queue.empty():
                    await self._publish(*self._queue.get_nowait())

    async def _publish(self, manifest: dict[str, Any], count: int) -> None:
        """The first one is created; a later one counts up, unless the API server has forgotten the first."""
        if count > 1 and await self._count_up(manifest, count):
            return
        if await self._client.create(manifest) is None:
            await self._count_up(manifest, max(count, 2))

    async def _count_up(self, manifest: dict[str, Any], count: int) -> bool:
        series = {"count": count, "lastObservedTime": manifest["eventTime"]}
        metadata = manifest["metadata"]
        patched = await self._client.patch(
            API_VERSION, "Event", metadata["namespace"], metadata["name"], {"series": series}
        )
        return patched is not None


def build_event(
    body: Mapping[str, Any], event: Event, name: str, instance: str, now: datetime
) -> dict[str, Any]:
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
        "note": event.message[:MAX_NOTE],
        "regarding": {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
    }


def _name(body: Mapping[str, Any], event: Event) -> str:
    """The same for the same event of the same resource, also after a restart."""
    metadata = body["metadata"]
    told = "\0".join((metadata["uid"], event.type, event.reason, event.message))
    return f"{metadata['name']}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
