"""Reading of artifacts in threads: one for each alias at most, given up when no byte comes."""

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from tunesmith_agent.artifacts.errors import ArtifactUnreadable
from tunesmith_agent.artifacts.sources import Artifact, ArtifactSources
from tunesmith_contract.agent import Version

#: Longest sleep between two looks at the progress of a read.
_LOOK_SECONDS = 1.0


class _GivenUp(Exception):
    """End of a read that nobody waits for any more, raised in its thread."""


class _Read:
    """One read in a thread of its own, which does not keep the process from ending."""

    def __init__(self, sources: ArtifactSources, version: Version, on_end: Callable[[], None]) -> None:
        self.moved_at = time.monotonic()
        self.artifact: Artifact | None = None
        self.error: Exception | None = None
        self._sources = sources
        self._version = version
        self._on_end = on_end
        self._is_given_up = False
        threading.Thread(target=self._run, name="artifact", daemon=True).start()

    def give_up(self) -> None:
        """End the thread at its next piece."""
        self._is_given_up = True

    def _run(self) -> None:
        try:
            self.artifact = self._sources.open(self._version.uri, self._version.digest, self._note_bytes)
        except Exception as error:
            self.error = error
        finally:
            self._on_end()

    def _note_bytes(self, size: int) -> None:
        if self._is_given_up:
            raise _GivenUp
        self.moved_at = time.monotonic()


class Fetches:
    """Reads of the artifacts of all aliases.

    A store that hangs, or a large artifact, holds up its own alias alone. A thread that hangs can't be ended: until it
    ends by itself, its alias gets no other.

    Args:
        stall_seconds: time without a byte after which a read is given up.
    """

    def __init__(self, sources: ArtifactSources, stall_seconds: float) -> None:
        self._sources = sources
        self._stall_seconds = stall_seconds
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._same: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._hanging: dict[str, asyncio.Event] = {}

    async def fetch(self, alias: str, version: Version) -> Artifact:
        """Artifact of a version in the cache.

        Raises:
            ArtifactError: it can't be read or served, or no byte came for too long.
        """
        if artifact := self._sources.find_verified(version.digest):
            return artifact
        # Two aliases of one artifact read it once.
        async with self._turns[alias], self._same[version.uri, version.digest]:
            await self._until_free(alias)
            return await self._read(alias, version)

    def forget(self, aliases: set[str]) -> None:
        """Drop what is kept of aliases that are not served any more; called with those that are."""
        for name in [name for name, turn in self._turns.items() if name not in aliases and not turn.locked()]:
            del self._turns[name]
        for same in [same for same, lock in self._same.items() if not lock.locked()]:
            del self._same[same]
        for alias in [alias for alias, ended in self._hanging.items() if ended.is_set()]:
            del self._hanging[alias]

    async def _until_free(self, alias: str) -> None:
        """Wait for the end of a read that was given up."""
        if (ended := self._hanging.get(alias)) is None:
            return
        try:
            async with asyncio.timeout(self._stall_seconds):
                await ended.wait()
        except TimeoutError:
            message = "An earlier read of an artifact of this alias still hangs: check its store or claim."
            raise ArtifactUnreadable("StorageStalled", message) from None
        self._hanging.pop(alias, None)

    async def _read(self, alias: str, version: Version) -> Artifact:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            # The loop may have ended before the thread.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

        read = _Read(self._sources, version, notify)
        try:
            while not ended.is_set():
                left = self._stall_seconds - (time.monotonic() - read.moved_at)
                if left <= 0:
                    message = f"No byte of {version.uri} came for {self._stall_seconds:g} s: check its store or claim."
                    raise ArtifactUnreadable("StorageStalled", message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                        await ended.wait()
        finally:
            if not ended.is_set():
                read.give_up()
                self._hanging[alias] = ended
        if read.error is not None:
            raise read.error
        assert read.artifact is not None, "a read ends with an artifact or an error"
        return read.artifact
