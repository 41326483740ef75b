"""UIDs of objects that were deleted a short while ago."""

from collections import deque
from collections.abc import Callable

#: Longer than any response, list or event of an object can be under way.
REMEMBERED_SECONDS = 600.0


class Tombstones:
    """UIDs that were added within ``REMEMBERED_SECONDS``: a UID is never given to a second object.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._uids: set[str] = set()
        self._added: deque[tuple[float, str]] = deque()

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def __len__(self) -> int:
        return len(self._uids)

    def add(self, uid: str) -> None:
        """Remember the UID, and forget those of long ago."""
        now = self._clock()
        while self._added and self._added[0][0] <= now - REMEMBERED_SECONDS:
            self._uids.discard(self._added.popleft()[1])
        if uid not in self._uids:
            self._uids.add(uid)
            self._added.append((now, uid))

    def clear(self) -> None:
        """Forget all: deleted objects have come back with an older state of the API server."""
        self._uids.clear()
        self._added.clear()
