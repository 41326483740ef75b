"""Desired state of the pod: the newest one from any source, and the watcher of its mounted file."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.agent import DesiredState

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0


class DesiredStore:
    """Newest DesiredState: of several sources, the highest generation wins."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.current: DesiredState | None = None
        self._on_change = on_change

    def offer(self, data: str | bytes, source: str) -> bool:
        """Accept a state if it is newer than the current one; True if it was. An invalid one is logged and ignored."""
        try:
            state = DesiredState.model_validate_json(data)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            log.error("desired state is invalid", extra={"source": source, "problems": problems[:3]})
            return False
        if self.current is not None and state.generation <= self.current.generation:
            return False
        log.info("new desired state", extra={"source": source, "generation": state.generation})
        self.current = state
        self._on_change()
        return True


class FileWatcher:
    """Poller of the mounted ConfigMap's file, the source of the desired state while the operator is away."""

    def __init__(self, path: Path, store: DesiredStore) -> None:
        self._path = path
        self._store = store
        self._last_read: tuple[int, int] | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            self._poll()
            await asyncio.sleep(POLL_SECONDS)

    def _poll(self) -> None:
        try:
            status = self._path.stat()
            # kubelet swaps a symlink: a new file has another inode.
            identity = (status.st_ino, status.st_mtime_ns)
            if identity == self._last_read:
                return
            data = self._path.read_bytes()
        except OSError as error:
            if self._last_read is not None or not isinstance(error, FileNotFoundError):
                log.warning("desired state file is not readable", extra={"error": error.strerror})
            self._last_read = None
            return
        self._last_read = identity
        self._store.offer(data, "file")
