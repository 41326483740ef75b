"""kopf as the watcher of the three kinds; docs/decisions/0003-kopf.md lists its traps and how each is met."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.client import PAGE
from tunesmith.controller_runtime.connection import Connection
from tunesmith.manifests.names import API_VERSION, GROUP, PLURALS
from tunesmith.manifests.objects import Body

logger = logging.getLogger(__name__)

OnEvent = Callable[[str | None, Body], None]
"""Receiver of one event: its type (None for objects of the first list) and the object."""

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
#: A whole number: kopf writes it into the URL as it is, and the API server refuses ``600.0``.
SERVER_SECONDS = 600
SILENCE_SECONDS = 90.0
#: kopf keeps the last body of an object as long after its event: at the start that is all of them.
IDLE_SECONDS = 0.1
#: kopf gets a new session so often: certificates may have been replaced.
SESSION_SECONDS = 600.0
#: Without one kopf asks the system for the user's name, and the UID of a pod has none.
IDENTITY: Any = "tunesmith"
#: After so long kopf's next failure counts as its first.
SETTLED_SECONDS = 60.0
#: Endless: a watch whose back-offs run out would end for good.
BACKOFF = Backoff(first=0.25, longest=30.0)


class NoDiffs(kopf.DiffBaseStorage):
    """Storage without earlier states: kopf then computes no differences, which cost several copies of each object."""

    def build(self, **_: Any) -> Any:
        """The same essence for every object."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """No earlier state."""
        return None

    def store(self, **_: Any) -> None:
        """No annotation."""


class NoProgress(kopf.ProgressStorage):
    """Storage without progress: only state-changing handlers have any, and there are none."""

    def fetch(self, **_: Any) -> Any:
        """No stored progress."""
        return None

    def store(self, **_: Any) -> None:
        """No annotation."""

    def purge(self, **_: Any) -> None:
        """No annotation to remove."""

    def touch(self, **_: Any) -> None:
        """No annotation to renew."""

    def clear(self, *, essence: Any) -> Any:
        """The essence as it is."""
        return essence


class NoMemories(ResourceMemories):
    """kopf's records of objects, of which none is kept: only state-changing handlers and daemons need them."""

    async def recall(self, *args: Any, **fields: Any) -> ResourceMemory:
        """A record for one event."""
        return await super().recall(*args, **fields | {"ephemeral": True})


def build_kopf_settings(backoff: Backoff = BACKOFF) -> kopf.OperatorSettings:
    """kopf's settings: no scanning, no posting, no peering, no annotations."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.error_backoffs = backoff
    settings.networking.enforce_retry_after = True
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.inactivity_timeout = SILENCE_SECONDS
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = NoDiffs()
    return settings


def build_kopf_registry(
    kinds: Iterable[str], on_event: OnEvent, connection: Connection
) -> kopf.OperatorRegistry:
    """One handler per kind, which passes every event to ``on_event``; no finalizer, no annotation, no patch.

    kopf gets sessions of the operator's connection, not a ``ConnectionInfo``: that has no ``tls-server-name``, and its
    token is fixed.
    """
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(
            server=connection.server,
            aiohttp_session=await connection.new_session(),
            expiration=datetime.now(UTC) + timedelta(seconds=SESSION_SECONDS),
        )

    async def watched(*, event: Any, **_: Any) -> None:
        on_event(event["type"], event["object"])

    kopf.on.login(registry=registry)(login)
    for kind in kinds:
        kopf.on.event(API_VERSION, PLURALS[kind], registry=registry)(watched)
    return registry


async def watch_resources(
    kinds: Iterable[str],
    namespaces: tuple[str, ...],
    on_event: OnEvent,
    started: Callable[[], None],
    connection: Connection,
    backoff: Backoff = BACKOFF,
) -> None:
    """Run kopf until it fails or this is cancelled.

    kopf's own ``operator()`` would cancel every other task of the loop at its end.

    Args:
        started: called once kopf has installed its signal handlers: the process has its own.
        connection: source of kopf's sessions.

    Raises:
        RuntimeError: kopf ended by itself.
    """
    stop = asyncio.Event()
    tasks = await kopf.spawn_tasks(
        registry=build_kopf_registry(kinds, on_event, connection),
        settings=build_kopf_settings(backoff),
        standalone=True,
        identity=IDENTITY,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        memories=NoMemories(),
    )
    started()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = next(iter(done))
        raise RuntimeError(f"kopf ended: {ended.get_name()}") from ended.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # kopf leaves a task behind that waits for it.
        stop.set()


async def keep_watching(
    kinds: Iterable[str],
    namespaces: tuple[str, ...],
    on_event: OnEvent,
    started: Callable[[], None],
    connection: Connection,
    again: asyncio.Event,
    backoff: Backoff = BACKOFF,
) -> None:
    """Run kopf without end: it ends at any error within a watch, and an API server that restarts sends those.

    Args:
        again: set when kopf has to start anew, since the versions that it knows are of no use any more.
    """
    failures = 0
    while True:
        watching = asyncio.create_task(
            watch_resources(kinds, namespaces, on_event, started, connection, backoff), name="kopf's tasks"
        )
        asked = asyncio.create_task(again.wait(), name="kopf is to start anew")
        began = time.monotonic()
        try:
            await asyncio.wait((watching, asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, asked):
                task.cancel()
            ends = await asyncio.gather(watching, asked, return_exceptions=True)
        if not again.is_set():
            logger.warning("kopf starts anew: %s", ends[0], exc_info=ends[0])
        again.clear()
        failures = 0 if time.monotonic() - began > SETTLED_SECONDS else failures + 1
        await asyncio.sleep(backoff.seconds(failures))


def missing_watchers(
    kinds: Iterable[str], namespaces: tuple[str, ...], tasks: Iterable[asyncio.Task[Any]]
) -> set[str]:
    """Names of the kopf tasks that should run and do not."""
    alive = {task.get_name() for task in tasks if not task.done()}
    expected = {
        f"watcher for {PLURALS[kind]}.v1alpha1.{GROUP}@{namespace}"
        for kind in kinds
        for namespace in namespaces or (None,)
    }
    return expected - alive
