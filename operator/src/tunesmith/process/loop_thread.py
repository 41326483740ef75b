"""An event loop in a thread of its own, for what must not wait for the work of the main one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class LoopThread:
    """The thread runs until the end of the block; tasks that are left then are cancelled.

    Its loop is asyncio's own: credential plugins are processes, which uvloop starts in the main thread only.
    """

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = threading.Event()

    async def __aenter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine there, and wait for its end; cancelling the one cancels the other."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the function there soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    @asynccontextmanager
    async def opened(self, resource: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Open the resource there, and close it there with the end of the block."""
        entered = await self.run(_enter(resource))
        try:
            yield entered
        finally:
            await self.run(_leave(resource))

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop, self._stop = runner.get_loop(), asyncio.Event()
            self._started.set()
            runner.run(_wait_for(self._stop))


async def _wait_for(stop: asyncio.Event) -> None:
    await stop.wait()


async def _enter(resource: AbstractAsyncContextManager[T]) -> T:
    return await resource.__aenter__()


async def _leave(resource: AbstractAsyncContextManager[Any]) -> None:
    await resource.__aexit__(None, None, None)
