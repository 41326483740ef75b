"""Reads that concern no single resource, such as the nodes: many resources at once share one answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import Refused
from tunesmith.manifests.objects import Body

#: How long an answer serves those who ask after it.
SECONDS = 10.0
KUEUE = "kueue.x-k8s.io"

Answer = TypeVar("Answer")


class SharedAnswer(Generic[Answer]):
    """The latest answer to a question, or the one that is under way.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = 0.0
        self._task: asyncio.Task[Answer] | None = None

    async def get(self, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer, asked for anew where the latest one is old or was an error."""
        task = self._task
        if task is None or (task.done() and self._is_useless(task)):
            self._asked_at = self._clock()
            task = self._task = asyncio.create_task(ask())
        # One who gives up takes the answer away from nobody.
        return await asyncio.shield(task)

    def _is_useless(self, task: "asyncio.Task[Answer]") -> bool:
        failed = task.cancelled() or task.exception() is not None
        return failed or self._clock() - self._asked_at >= SECONDS


class ClusterReads:
    """The nodes and the version of Kueue."""

    def __init__(self) -> None:
        self._nodes: SharedAnswer[tuple[Body, ...]] = SharedAnswer()
        self._kueue: SharedAnswer[str | None] = SharedAnswer()

    async def nodes(self, client: Client) -> tuple[Body, ...]:
        """All nodes; none where the operator may not list them."""

        async def list_nodes() -> tuple[Body, ...]:
            try:
                return tuple(await client.list("v1", "Node", None))
            except Refused:
                return ()

        return await self._nodes.get(list_nodes)

    async def kueue_version(self, client: Client) -> str | None:
        """Group and version of Kueue's kinds; None where there is no Kueue."""
        return await self._kueue.get(lambda: client.preferred_version(KUEUE))
