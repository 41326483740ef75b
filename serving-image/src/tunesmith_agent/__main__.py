"""Command ``python -m tunesmith_agent``: serves until SIGTERM, then drains and exits with 0."""

import asyncio
import gc
import signal
import sys

import uvloop

from .app import Agent
from .logs import configure_logging
from .settings import Settings, parse_settings


async def serve(settings: Settings) -> None:
    """Run one agent until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Agent(settings).run(stop)


def main() -> None:
    """Entry point of the process."""
    configure_logging()
    settings = parse_settings(sys.argv[1:])
    # Imported objects live as long as the process: exempt them from garbage collection.
    gc.freeze()
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
