"""A fence before all that changes the cluster: nobody acts on data that the API server may no longer have."""

import asyncio
from collections.abc import Callable

from .errors import Retryable


class Fence:
    """Closed while the API server's data may be older than what is known of them.

    A server that was away may come back with older data: its etcd was restored from a backup. What was known before and
    what is listed since don't fit together: a run that is known to have ended would lose its Job, which runs again.

    So each interruption of a watch closes the fence (``doubt``) until the lease was read and renewed (``confirm``): its
    version tells whether data went back. If they did (``go_back``), it stays closed until all is listed (``catch_up``).

    Attributes:
        setbacks: how often data went back.
        on_doubt: called with the number of each doubt; whoever reads the lease then passes it to ``confirm``.
    """

    def __init__(self) -> None:
        self.setbacks = 0
        self.on_doubt: Callable[[int], None] = lambda number: None
        self._doubts = 0
        self._confirmed = 0
        self._is_outdated = False
        self._open = asyncio.Event()
        self._open.set()

    def doubt(self) -> None:
        """A watch was interrupted."""
        self._doubts += 1
        self._update()
        self.on_doubt(self._doubts)

    def confirm(self, number: int) -> None:
        """The lease is as it was written; the doubt of this number was the last one before it was read."""
        self._confirmed = number
        self._update()

    def go_back(self) -> None:
        """Data went back."""
        self.setbacks += 1
        self._is_outdated = True
        self._update()

    def catch_up(self) -> None:
        """All was listed since data went back."""
        self._is_outdated = False
        self._update()

    async def wait(self) -> None:
        """Return once the fence is open."""
        await self._open.wait()

    async def wait_since(self, setbacks: int) -> None:
        """Return once the fence is open.

        Raises:
            Retryable: data went back since there were so many setbacks.
        """
        await self.wait()
        if setbacks != self.setbacks:
            raise Retryable("the API server's data went back while the resource was reconciled")

    def _update(self) -> None:
        if self._confirmed == self._doubts and not self._is_outdated:
            self._open.set()
        else:
            self._open.clear()
