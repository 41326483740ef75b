"""Fixtures of the tests of the command."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _logs_return() -> Iterator[None]:
    """Undo that the command silences the logs of its process."""
    yield
    logging.disable(logging.NOTSET)
