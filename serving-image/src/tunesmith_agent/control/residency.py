"""Residency of versions in the engine: loads and unloads within its slots, so that it never evicts by itself."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_agent.engine.client import EngineClient, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import ResidencyStats, VersionStats
from tunesmith_agent.routing.gate import Gate
from tunesmith_contract.agent import served_name

from .slots import EngineSlots, Place, Use
from .versions import Key

log = logging.getLogger(__name__)

#: Loads at the same time: more would only wait in the engine, where those that are urgent can't overtake them.
PARALLEL_LOADS = 2
#: Seconds for which a version waits until another one has no request in progress. Then it counts as if requests waited
#: for it: versions that are never idle would keep all slots, and a new version would never be proven.
PATIENCE_SECONDS = 10.0


@dataclass(slots=True)
class _Resident:
    """One version that takes, took or will take a slot.

    Attributes:
        folder: its artifact; None until it was fetched.
        loads: tasks that wait until it is loaded.
        unloads: tasks that wait until it is unloaded.
        number: counts its loads.
    """

    stats: VersionStats
    gate: Gate
    folder: Path | None = None
    loads: list[asyncio.Future[None]] = field(default_factory=list)
    unloads: list[asyncio.Future[None]] = field(default_factory=list)
    number: int = 0


class Residency:
    """Owner of the engine's slots; everything runs on one event loop.

    Args:
        engine: client of the engine.
        slots: number of adapters that the engine keeps in memory.
        stats: names the versions that the engine holds.
        on_failed: called with a version that could not be loaded again for the requests that wait for it.
    """

    def __init__(
        self, engine: EngineClient, slots: int, stats: ResidencyStats, on_failed: Callable[[Key], None]
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._on_failed = on_failed
        self._versions: dict[Key, _Resident] = {}
        self._slots: EngineSlots[Key] = EngineSlots(slots, self._use)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading = 0
        self._is_advancing = self._is_advance_due = False
        #: Counts changes of what the engine holds.
        self._number = 0

    # -- one version

    def add(self, key: Key, stats: VersionStats, gate: Gate) -> None:
        """Begin with a version, whose artifact may not be here yet."""
        self._versions[key] = _Resident(stats, gate)
        gate.on_wait = lambda: self._demand(key)
        stats.on_idle = self._note_idle

    @contextlib.asynccontextmanager
    async def hold(self, key: Key, folder: Path) -> AsyncIterator[None]:
        """Keep a version in the engine, loading it first if it is not there.

        Args:
            folder: its artifact, which never changes.

        Raises:
            EngineRefused: this engine can't serve the adapter; the message is the engine's.
            EngineUnavailable: the engine is down.
        """
        resident = self._versions[key]
        resident.folder = folder
        self._slots.want(key)
        if self._slots.place(key) is Place.LOADED:
            self._slots.hold(key)
            resident.gate.set_resident(True)
        else:
            await self._until_held(key, resident)
        try:
            yield
        finally:
            self._slots.let_go(key)
            self._advance()

    async def unload(self, key: Key) -> None:
        """Unload a version when its last request has ended; one that is not loaded is no error."""
        resident = self._versions[key]
        resident.gate.set_resident(False)
        resident.gate.release()
        self._slots.leave(key)
        if self._slots.place(key) is not None:
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            resident.unloads.append(freed)
            self._advance()
            await freed

    def forget(self, key: Key) -> None:
        """End with a version; requests that wait for it choose again."""
        self._slots.leave(key)
        resident = self._versions.pop(key, None)
        if resident is not None:
            self._free(key, resident)
            resident.stats.on_idle = resident.gate.on_wait = None
            resident.gate.release()

    # -- the engine

    def snapshot(self) -> Mapping[Key, int]:
        """Loaded versions, each with the number of its load: ``compare`` wants it from before the engine was asked."""
        return {
            key: self._versions[key].number
            for key, place in self._slots.places().items()
            if place is Place.LOADED
        }

    def compare(self, before: Mapping[Key, int], adapters: frozenset[str]) -> list[Key]:
        """Versions that were loaded before and since, and that the engine does not list: it was restarted."""
        now = self.snapshot()
        return [
            key
            for key, number in before.items()
            if now.get(key) == number and served_name(*key) not in adapters
        ]

    @property
    def number(self) -> int:
        """Number of changes of what the engine holds; ``adopt`` wants it from before the engine was asked."""
        return self._number

    def adopt(self, number: int, adapters: frozenset[str], desired: Mapping[str, Key]) -> None:
        """Take over what the engine holds from a former life of this process, and unload what nobody wants.

        Args:
            number: ``number`` from before the engine was asked: what changed meanwhile is looked at the next time.
            adapters: the names that it listed.
            desired: versions that are desired, by name.
        """
        if number != self._number:
            return
        known = {served_name(*key) for key in self._slots.places()}
        for name in sorted(adapters - known):
            key = desired.get(name)
            if key is None or (key in self._versions and not self._slots.adopt(key)):
                self._start(self._unload_orphan(name))
            elif (resident := self._versions.get(key)) is not None:
                self._arrive(key, resident)
        self._advance()

    def lose(self, key: Key) -> None:
        """Record that the engine has a version no more."""
        if (resident := self._versions.get(key)) is not None:
            self._free(key, resident)

    def reset(self) -> None:
        """Record that the engine is down: it holds nothing any more."""
        self._cancel_tasks()
        for key, resident in self._versions.items():
            self._slots.forget_want(key)
            self._free(key, resident)
            self._fail(resident, EngineUnavailable("the engine is down"))

    def retry(self) -> None:
        """Try again what failed."""
        self._advance()

    async def close(self) -> None:
        """Cancel what is in progress."""
        tasks = tuple(self._tasks)
        self._cancel_tasks()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- inside

    def _use(self, key: Key) -> Use:
        stats = self._versions[key].stats
        return Use(stats.in_flight, stats.last_used)

    def _demand(self, key: Key) -> None:
        resident = self._versions.get(key)
        if resident is not None and resident.folder is not None:
            self._slots.want(key, urgent=True)
            self._advance()

    def _note_idle(self) -> None:
        if not self._slots.settled:
            self._advance()

    async def _until_held(self, key: Key, resident: _Resident) -> None:
        loop = asyncio.get_running_loop()
        load: asyncio.Future[None] = loop.create_future()
        resident.loads.append(load)
        self._advance()
        patience = loop.call_later(PATIENCE_SECONDS, self._press, key, load)
        try:
            await load
        except asyncio.CancelledError:
            if load.done() and not load.cancelled() and load.exception() is None:
                self._slots.let_go(key)
            elif not resident.gate.waiting and all(other.done() for other in resident.loads):
                self._slots.forget_want(key)
            raise
        finally:
            patience.cancel()

    def _press(self, key: Key, load: asyncio.Future[None]) -> None:
        """Let a version that has waited for long have the slot of one with requests in progress."""
        if not load.done():
            self._slots.want(key, urgent=True)
            self._advance()

    def _advance(self) -> None:
        """Start what can be done now; starting it may call this method again."""
        self._is_advance_due = True
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._is_advance_due:
                self._is_advance_due = False
                self._advance_once()
        finally:
            self._is_advancing = False

    def _advance_once(self) -> None:
        while (key := self._slots.take_returner()) is not None:
            self._arrive(key, self._versions[key])
        while self._loading < PARALLEL_LOADS and (key := self._slots.take_load()) is not None:
            self._loading += 1
            self._start(self._load(key, self._versions[key]))
        while (key := self._slots.take_leaver()) is not None:
            self._versions[key].gate.set_resident(False)
            self._versions[key].stats.evictions += 1
        while (key := self._slots.take_unload()) is not None:
            self._start(self._unload(key, self._versions[key]))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, key: Key, resident: _Resident) -> None:
        name, error = served_name(*key), None
        try:
            if name not in await self._engine.adapters():
                await self._engine.load(name, str(resident.folder))
        except (EngineUnavailable, EngineRefused) as caught:
            error = caught
        finally:
            self._loading -= 1
        if self._versions.get(key) is not resident:
            self._start(self._unload_orphan(name))
        elif error is not None:
            self._free(key, resident)
            is_awaited = self._fail(resident, error)
            if not is_awaited:
                self._on_failed(key)
        else:
            resident.stats.loads += 1
            self._slots.loaded(key)
            if self._slots.place(key) is Place.LOADED:
                self._arrive(key, resident)
        self._advance()

    async def _unload(self, key: Key, resident: _Resident) -> None:
        try:
            await self._engine.unload(served_name(*key))
        except (EngineUnavailable, EngineRefused) as error:
            log.warning("unload failed", extra={"alias": key[0], "error": str(error)})
            if self._versions.get(key) is resident:
                self._slots.stay(key)
            return
        if self._versions.get(key) is resident:
            self._free(key, resident)
            self._advance()

    async def _unload_orphan(self, name: str) -> None:
        try:
            await self._engine.unload(name)
            log.info("unloaded an adapter that nobody wants", extra={"adapter": name})
        except (EngineUnavailable, EngineRefused) as error:
            log.warning("unload failed", extra={"adapter": name, "error": str(error)})

    def _arrive(self, key: Key, resident: _Resident) -> None:
        """Let requests through to a version that the engine holds, and those who wait for its load go on."""
        self._number += 1
        resident.number = self._number
        self._stats.resident_names.add(served_name(*key))
        loads, resident.loads = resident.loads, []
        for load in loads:
            if not load.done():
                self._slots.hold(key)
                load.set_result(None)
        resident.gate.set_resident(True)

    def _free(self, key: Key, resident: _Resident) -> None:
        self._number += 1
        self._slots.free(key)
        resident.gate.set_resident(False)
        self._stats.resident_names.discard(served_name(*key))
        unloads, resident.unloads = resident.unloads, []
        for freed in unloads:
            if not freed.done():
                freed.set_result(None)

    def _fail(self, resident: _Resident, error: Exception) -> bool:
        """Pass an error on to those who wait for a load; False if there is none."""
        loads, resident.loads = [load for load in resident.loads if not load.done()], []
        for load in loads:
            load.set_exception(error)
        return bool(loads)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
