"""The mounted ConfigMap: the way of the desired state when the operator is away."""

import asyncio
import logging
from pathlib import Path

from .desired_state import DesiredStore

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0


class FileWatcher:
    """Offers the file's content whenever it is another file than before (kubelet swaps a symlink)."""

    def __init__(self, path: Path, store: DesiredStore) -> None:
        self._path = path
        self._store = store
        self._seen: tuple[int, int] | None = None

    def look(self) -> None:
        """Read the file if it changed since the last look."""
        try:
            status = self._path.stat()
            identity = (status.st_ino, status.st_mtime_ns)
            if identity == self._seen:
                return
            data = self._path.read_bytes()
        except OSError as error:
            if self._seen is not None or not isinstance(error, FileNotFoundError):
                log.warning("desired state file not readable", extra={"error": error.strerror})
            self._seen = None
            return
        self._seen = identity
        self._store.offer(data, "file")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(POLL_SECONDS)
