"""HTTP/1.1 on asyncio protocols and httptools: the server side, and pooled connections to the engine."""
