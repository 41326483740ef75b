"""Command ``python -m tunesmith_agent``: serves until SIGTERM, then drains and exits with 0."""

import asyncio
import gc
import resource
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


#: Seconds after which a thread that makes metrics or spans lets the data path go on; Python's default is 0.005.
SWITCH_SECONDS = 0.0005

#: New objects after which garbage is collected; Python's default is 700. Requests leave no cycles, but thousands of
#: records wait for the access log for a moment: looking through them again and again would find nothing.
YOUNG_OBJECTS = 50_000


def raise_file_limit() -> None:
    """Allow as many open files as the container may have: many systems start processes with 1,024.

    A connection takes up to two files. Without any left, not even a probe would be answered.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Entry point of the process."""
    configure_logging()
    raise_file_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = parse_settings(sys.argv[1:])
    # Imported objects live as long as the process: exempt them from garbage collection.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
