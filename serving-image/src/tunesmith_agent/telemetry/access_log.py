"""Access log: one JSON line per request on stdout, without contents."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

import orjson

from tunesmith_agent.metrics import ANSWERED, ExportCounts

from .background import BackgroundQueue
from .record import RequestRecord

_LINES = 8192
_SECONDS = 0.25
_STOP_SECONDS = 1.0


class AccessLogs(StrEnum):
    """Requests that are written to the access log."""

    NONE = "None"
    #: Those that were not answered with a status below 400.
    ERRORS = "Errors"
    ALL = "All"


class AccessLog:
    """Writer of the access log.

    Args:
        which: requests that are written.
        counts: what became of the lines.
    """

    def __init__(self, which: AccessLogs, counts: ExportCounts) -> None:
        self._is_whole = which is AccessLogs.ALL
        self._queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "access-log", _write, counts, _LINES, _SECONDS
        )

    def start(self) -> None:
        """Start to write."""
        self._queue.start()

    def stop(self) -> None:
        """Write the rest."""
        self._queue.stop(_STOP_SECONDS)

    def add(self, record: RequestRecord) -> None:
        """Write a line on a request that has ended, if it is one of those to be written."""
        if self._is_whole or record.end is not ANSWERED or record.status >= 400:
            self._queue.put(record)


def _write(records: list[RequestRecord]) -> bool:
    try:
        sys.stdout.buffer.write(b"".join(map(_line, records)))
        sys.stdout.buffer.flush()
    except OSError:
        return False
    return True


#: A line on a request. A template takes a fifth of the time of a document, and each request waits for this thread.
_LINE = (
    b'{"time":"%b.%06d+00:00","level":"info","logger":"tunesmith_agent.access","message":"request","method":%b,'
    b'"path":%b,"alias":%b,"version":%b,"status":%b,"end":%b,"duration_ms":%d,"queued_ms":%b,"first_token_ms":%b,'
    b'"prompt_tokens":%b,"prompt_tokens_cached":%b,"generation_tokens":%b,"client":%b,"request_id":%b,'
    b'"trace_id":%b}\n'
)
_NULL = b"null"
_NO_COUNTS = (_NULL, _NULL, _NULL)


def _line(record: RequestRecord) -> bytes:
    begun, first, usage = record.begun, record.first_token_at, record.usage
    second, rest = divmod(record.ended_at, 1_000_000_000)
    return _LINE % (
        _second(second),
        rest // 1000,
        _text(record.method.decode()),
        _text(record.path),
        _text(record.alias),
        _text(record.version),
        b"%d" % record.status if record.status else _NULL,
        _text(record.end or ""),
        _milliseconds(record.ended - begun),
        b"%d" % _milliseconds(record.queued) if record.queued else _NULL,
        b"%d" % _milliseconds(first - begun) if first else _NULL,
        *((b"%d" % usage.prompt, b"%d" % usage.cached, b"%d" % usage.generated) if usage else _NO_COUNTS),
        _text(record.client),
        orjson.dumps(record.request_id.decode()),
        orjson.dumps(record.trace.trace_id.decode()) if record.trace else _NULL,
    )


@lru_cache(maxsize=4)
def _second(time: int) -> bytes:
    """Date and time of a POSIX time in UTC, without a fraction."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


@lru_cache(maxsize=4096)
def _text(text: str) -> bytes:
    """A text as JSON; null if it is empty. Few are different: names, paths, methods."""
    return orjson.dumps(text) if text else _NULL


def _milliseconds(seconds: float) -> int:
    """Milliseconds, which is what the loop's clock counts in."""
    return int(1000 * seconds + 0.5)
