"""Limits of the data path, in bytes and seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on clients and engine.

    Attributes:
        head_bytes: request line and headers together.
        body_bytes: a request's body.
        buffered_bytes: bodies of all clients together that are in memory.
        backlog_bytes: input of a pipelining client kept while an answer is in progress; reading stops above it.
        pipelined: complete requests of one connection that wait for their turn.
        connections: clients at the same time.
        read_seconds: from the first byte of a request to its last.
        idle_seconds: between two requests of a connection.
        stall_seconds: time after which a client that reads nothing of a waiting answer is disconnected.
        linger_seconds: time for which input is discarded after a refusal, so that the client can read the answer.
        connect_seconds: to open a connection to the engine.
        engine_seconds: maximum silence of the engine during a request.
        engine_idle_seconds: age at which an idle connection to the engine is not used again; less than the
            engine's own keep-alive time (uvicorn: 5 s).
        stale_seconds: a kept connection to the engine that breaks within this time after a request was sent had
            been closed before; the request is sent once more. One that breaks later broke because of the request.
        abandoned_seconds: time without a byte of the answer after which a client that leaves was kept waiting too long.
    """

    head_bytes: int = 32 * 1024
    body_bytes: int = 4 * 1024 * 1024
    buffered_bytes: int = 128 * 1024 * 1024
    backlog_bytes: int = 64 * 1024
    pipelined: int = 32
    connections: int = 1024
    read_seconds: float = 30.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    linger_seconds: float = 2.0
    connect_seconds: float = 2.0
    engine_seconds: float = 600.0
    engine_idle_seconds: float = 3.0
    stale_seconds: float = 0.05
    abandoned_seconds: float = 15.0
