"""What a local API server answers to a watch, over HTTP."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def stream(*events: tuple[str, dict[str, Any]], drop: bool = False) -> Answer:
    """A watch that ends after these events: as it should, or by a lost connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event_type, body in events:
            await response.write(json.dumps({"type": event_type, "object": body}).encode() + b"\n")
        if drop and request.transport is not None:
            request.transport.abort()
        return response

    return answer
