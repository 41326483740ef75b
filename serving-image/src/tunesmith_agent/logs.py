"""Structured logs: one JSON object per line on stderr, without request bodies and tokens."""

import logging
import sys

from pythonjsonlogger.core import LogData
from pythonjsonlogger.orjson import OrjsonFormatter

#: Names of a record's standard attributes in the output.
_FIELDS = {"levelname": "level", "name": "logger", "exc_info": "exception"}


class JsonFormatter(OrjsonFormatter):
    """Fields ``time``, ``level``, ``logger``, ``message``, ``exception`` where there is one, and ``extra`` values."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"], rename_fields=_FIELDS, timestamp="time", json_default=str
        )

    def process_log_record(self, log_data: LogData) -> LogData:
        """Fields of one line, the level in lower case."""
        log_data["level"] = log_data["level"].lower()
        return log_data


def configure_logging() -> None:
    """Send everything of level info and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
