"""Structured logs: one JSON object a line, the resource in a field of its own."""

import logging
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

#: Libraries whose every step is of no interest to people who run the operator.
_QUIET = ("kopf", "aiohttp.access", "asyncio")
#: kopf's own additions to its records: its settings, and the resource in a form of its own.
_KOPF_ATTRS = ("k8s_ref", "k8s_skip", "settings")


class JsonFormatter(OrjsonFormatter):
    """``time``, ``level``, ``logger``, ``message``, ``exception``, and the extra fields, such as ``resource``.

    ``resource`` holds kind, namespace, name and uid. The agent's logs have the same fields.
    """

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, *_KOPF_ATTRS],
            timestamp="time",
            json_default=str,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """The fields with the time in milliseconds and the level in lower case."""
        time = log_data.pop("time").isoformat(timespec="milliseconds")
        return {"time": time, **log_data, "level": log_data["level"].lower()}


def set_up_logs(level: str, form: str) -> None:
    """Log to standard error; kopf and the HTTP server from WARNING on."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
