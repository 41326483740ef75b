"""Structured logs: one JSON object a line, the resource in fields of its own."""

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

#: Libraries whose every step is of no interest to people who run the operator.
_QUIET = ("kopf", "aiohttp.access", "asyncio")


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, and ``resource`` (kind, namespace, name, uid) if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        resource = getattr(record, "resource", None)
        if resource:
            line["resource"] = resource
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up_logs(level: str, form: str) -> None:
    """Log to standard error; kopf and the HTTP server from WARNING on."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
