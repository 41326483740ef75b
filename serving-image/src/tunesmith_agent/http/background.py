"""Answers made by a coroutine: a task that ends when its client leaves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .connection import Handler, ServerConnection
from .messages import Refusal, Request

log = logging.getLogger(__name__)

Answer = tuple[int, bytes, bytes]


class BackgroundAnswers:
    """Handlers made from coroutine functions, and their tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def handler(self, make: Callable[[], Awaitable[Answer]]) -> Handler:
        """Handler that answers with the status, header lines and body that ``make`` returns."""

        def handle(connection: ServerConnection, request: Request) -> None:
            task = asyncio.get_running_loop().create_task(_answer(connection, make))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            connection.exchange = _TaskExchange(task, connection)

        return handle

    async def close(self) -> None:
        """Cancel all tasks."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _answer(connection: ServerConnection, make: Callable[[], Awaitable[Answer]]) -> None:
    try:
        answer = await make()
    except Exception:
        log.exception("background answer failed")
        connection.respond_refusal(Refusal(500, "This answer could not be made.", kind="server_error"))
    else:
        connection.respond(*answer)


class _TaskExchange:
    def __init__(self, task: asyncio.Task[None], connection: ServerConnection) -> None:
        self._task = task
        self._connection = connection

    def client_lost(self) -> None:
        self._task.cancel()

    def pause(self) -> None:
        """No effect: the answer is made as a whole."""

    def resume(self) -> None:
        """No effect, like ``pause``."""

    def timed_out(self) -> None:
        self._task.cancel()
        self._connection.respond_refusal(Refusal(504, "This took too long.", kind="server_error"))
