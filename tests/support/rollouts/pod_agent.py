"""The agent's process, for which names of Services lead to this machine, as the cluster's DNS does for pods."""

from typing import Any

from aiohttp.resolver import ThreadedResolver

from tunesmith_agent.__main__ import main

SERVICE_SUFFIX = ".svc"
_resolve = ThreadedResolver.resolve


async def resolve_service(resolver: ThreadedResolver, host: str, *arguments: Any, **named: Any) -> Any:
    """Addresses of a host; results keep the name, which the certificate is checked against."""
    is_service = host.endswith(SERVICE_SUFFIX)
    found = await _resolve(resolver, "127.0.0.1" if is_service else host, *arguments, **named)
    return [{**each, "hostname": host} for each in found]


if __name__ == "__main__":
    ThreadedResolver.resolve = resolve_service  # type: ignore[method-assign, assignment]
    main()
