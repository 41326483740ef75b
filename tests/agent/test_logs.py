"""Log lines of the agent."""

import datetime
import json
import logging
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tunesmith_agent.logs import JsonFormatter

Log = Callable[..., dict[str, Any]]


@pytest.fixture
def log() -> Log:
    """Log one message; returns the fields of its line."""
    stream, logger = StringIO(), logging.Logger("agent.test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)

    def write(*arguments: object, **keywords: Any) -> dict[str, Any]:
        logger.warning(*arguments, **keywords)
        (line,) = stream.getvalue().splitlines()
        fields: dict[str, Any] = json.loads(line)
        return fields

    return write


def test_fields(log: Log) -> None:
    fields = log("loaded %s", "a", extra={"alias": "a", "path": Path("/x"), "resource": {"kind": "Pod"}})
    time = datetime.datetime.fromisoformat(fields.pop("time"))
    assert time.utcoffset() == datetime.timedelta(0)
    assert fields == {
        "level": "warning", "logger": "agent.test", "message": "loaded a", "alias": "a", "path": "/x",
        "resource": {"kind": "Pod"},
    }  # fmt: skip


def test_exception_is_one_field_of_one_line(log: Log) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        fields = log("step failed", exc_info=True)
    assert fields["message"] == "step failed"
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: first\nsecond")
