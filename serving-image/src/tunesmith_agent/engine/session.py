"""Sessions of control traffic to the engine."""

import aiohttp

from tunesmith_agent.http.address import Address, UnixAddress


def open_session(address: Address, connections: int) -> aiohttp.ClientSession:
    """A session for paths at the engine, in a running event loop.

    Args:
        connections: most of them at the same time.
    """
    if isinstance(address, UnixAddress):
        # The host is only what the engine reads in the Host header.
        connector = aiohttp.UnixConnector(address.path, limit=connections)
        return aiohttp.ClientSession("http://localhost", connector=connector)
    return aiohttp.ClientSession(address.url, connector=aiohttp.TCPConnector(limit=connections))
