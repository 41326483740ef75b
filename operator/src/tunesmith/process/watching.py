"""What kopf does here: it watches the three kinds. docs/decisions/0003-kopf.md says how each of its traps is met."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from tunesmith.controller_runtime.credentials import REREAD_SECONDS, load_connection
from tunesmith.manifests.names import API_VERSION, GROUP, PLURALS

Seen = Callable[[str | None, dict[str, Any]], None]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
#: A whole number: kopf writes it into the URL as it is, and the API server refuses ``600.0``.
SERVER_SECONDS = 600
SILENCE_SECONDS = 90.0
#: Without one kopf asks the system for the user's name, and the UID of a pod has none.
IDENTITY: Any = "tunesmith"
MAX_BACKOFF_SECONDS = 30.0


class EndlessBackoffs(Iterable[float]):
    """Growing, jittered, and never over: a watch whose back-offs run out would end for good."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            longest = min(MAX_BACKOFF_SECONDS, 0.25 * 2 ** min(attempt, 16))
            yield longest * random.uniform(0.5, 1.0)


class NoDiffs(kopf.DiffBaseStorage):
    """kopf computes what changed in each object at each event, copying it several times; nothing here asks for that."""

    def build(self, **_: Any) -> Any:
        """Every object looks the same."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """There is never an earlier state."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept: no annotation."""


class NoProgress(kopf.ProgressStorage):
    """Only state-changing handlers have progress, and there are none."""

    def fetch(self, **_: Any) -> Any:
        """Nothing is under way."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept: no annotation."""

    def purge(self, **_: Any) -> None:
        """Nothing was kept."""

    def touch(self, **_: Any) -> None:
        """Nothing has to be told again."""

    def clear(self, *, essence: Any) -> Any:
        """Nothing was added."""
        return essence


def build_kopf_settings() -> kopf.OperatorSettings:
    """How kopf behaves in this operator."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.enforce_retry_after = True
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.inactivity_timeout = SILENCE_SECONDS
    settings.watching.chunk_size = 500
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = NoDiffs()
    return settings


def build_kopf_registry(kinds: Iterable[str], seen: Seen) -> kopf.OperatorRegistry:
    """One handler per kind, which hands every event on; no finalizer, no annotation, no patch."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        expiration = datetime.now(UTC) + timedelta(seconds=10 * REREAD_SECONDS)
        return replace(load_connection(), expiration=expiration)

    async def watched(*, event: Any, **_: Any) -> None:
        seen(event["type"], event["object"])

    kopf.on.login(registry=registry)(login)
    for kind in kinds:
        kopf.on.event(API_VERSION, PLURALS[kind], registry=registry)(watched)
    return registry


async def watch_resources(
    kinds: Iterable[str], namespaces: tuple[str, ...], seen: Seen, started: Callable[[], None]
) -> None:
    """Run kopf until it fails or this is cancelled.

    kopf's own ``operator()`` would take every other task of the loop for one of its own at the end.

    Args:
        started: called once kopf has installed its signal handlers: the process has its own.

    Raises:
        RuntimeError: kopf ended by itself.
    """
    tasks = await kopf.spawn_tasks(
        registry=build_kopf_registry(kinds, seen),
        settings=build_kopf_settings(),
        standalone=True,
        identity=IDENTITY,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=asyncio.Event(),
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


def missing_watchers(
    kinds: Iterable[str], namespaces: tuple[str, ...], tasks: Iterable[asyncio.Task[Any]]
) -> set[str]:
    """The kopf tasks that should be there and are not, or have ended."""
    alive = {task.get_name() for task in tasks if not task.done()}
    expected = {
        f"watcher for {PLURALS[kind]}.v1alpha1.{GROUP}@{namespace}"
        for kind in kinds
        for namespace in namespaces or (None,)
    }
    return expected - alive
