"""Limits of the data path, in bytes and seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on clients and engine; a client is known by its address.

    Attributes:
        head_bytes: request line and headers together; also chunk extensions and trailers of a chunked body.
        body_bytes: a request's body.
        buffered_bytes: heads, bodies and pipelined input of all clients together that are in memory. When half of it
            is used, an address may hold an equal share of the other half and no more.
        backlog_bytes: input of a pipelining client kept while an answer is in progress; reading stops above it.
        pipelined: complete requests of one connection that wait for their turn.
        connections: connections at the same time. When there are as many, the one that is idle for longest is closed
            for a new one.
        address_connections: connections of one address, so that no client can take them all.
        refused_connections: refused connections that are open for a moment, so that their client can read why; any
            more are closed without an answer.
        read_seconds: from the first byte of a request to its last.
        slow_seconds: time after which a request that is still arriving may be given up for a new connection, if
            there are too many and none is idle.
        idle_seconds: between two requests of a connection.
        stall_seconds: time after which a client that reads nothing of a waiting answer is disconnected.
        linger_seconds: time for which input is discarded after a refusal, so that the client can read the answer.
        connect_seconds: to open a connection to the engine.
        engine_seconds: maximum silence of the engine during a request.
        engine_idle_seconds: age at which an idle connection to the engine is not used again; less than the
            engine's own keep-alive time (uvicorn: 5 s).
        abandoned_seconds: time without a byte of the answer after which a client that leaves was kept waiting too long.
    """

    head_bytes: int = 32 * 1024
    body_bytes: int = 4 * 1024 * 1024
    buffered_bytes: int = 128 * 1024 * 1024
    backlog_bytes: int = 64 * 1024
    pipelined: int = 32
    connections: int = 1024
    address_connections: int = 768
    refused_connections: int = 64
    read_seconds: float = 30.0
    slow_seconds: float = 5.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    linger_seconds: float = 2.0
    connect_seconds: float = 2.0
    engine_seconds: float = 600.0
    engine_idle_seconds: float = 3.0
    abandoned_seconds: float = 15.0


#: Limits of the port for probes and metrics: many short requests of few clients, which never wait for room.
MONITORING_LIMITS = Limits(
    head_bytes=8 * 1024,
    body_bytes=1024,
    buffered_bytes=1024 * 1024,
    backlog_bytes=8 * 1024,
    pipelined=4,
    connections=64,
    address_connections=32,
    refused_connections=16,
    read_seconds=5.0,
    slow_seconds=1.0,
    idle_seconds=30.0,
    stall_seconds=10.0,
    engine_seconds=10.0,
)
