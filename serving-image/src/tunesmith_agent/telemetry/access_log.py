"""Access log: one JSON line per request on stdout, without contents."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

from tunesmith_agent.metrics import End, ExportCounts

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
        if self._is_whole or record.end is not End.ANSWERED or record.status >= 400:
            self._queue.put(record)


def _write(records: list[RequestRecord]) -> bool:
    lines = [orjson.dumps(_fields(record), option=orjson.OPT_APPEND_NEWLINE) for record in records]
    try:
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()
    except OSError:
        return False
    return True


def _fields(record: RequestRecord) -> dict[str, Any]:
    begun, usage = record.begun, record.usage
    first = record.first_token_at
    return {
        "time": datetime.fromtimestamp(record.ended_at / 1e9, UTC),
        "level": "info",
        "logger": "tunesmith_agent.access",
        "message": "request",
        "method": record.method.decode(),
        "path": record.path or None,
        "alias": record.alias or None,
        "version": record.version or None,
        "status": record.status or None,
        "end": str(record.end),
        "duration_ms": _milliseconds(record.ended - begun),
        "queued_ms": _milliseconds(record.queued) if record.queued else None,
        "first_token_ms": _milliseconds(first - begun) if first else None,
        "prompt_tokens": usage.prompt if usage else None,
        "prompt_tokens_cached": usage.cached if usage else None,
        "generation_tokens": usage.generated if usage else None,
        "client": record.client or None,
        "request_id": record.request_id.decode(),
        "trace_id": record.trace.trace_id.decode() if record.trace else None,
    }


def _milliseconds(seconds: float) -> int:
    """Milliseconds, which is what the loop's clock counts in."""
    return int(1000 * seconds + 0.5)
