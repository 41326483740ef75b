"""Fixtures of the trainer's tests."""

from pathlib import Path

import pytest
from stages.stage_world import (
    allow_third_party_warnings,
    make,
    models,
    one_thread,
    server,
    shared_world,
    world,
)

__all__ = ["make", "models", "one_thread", "server", "shared_world", "world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Third-party warnings do not fail these tests."""
    allow_third_party_warnings(items, Path(__file__).parent)
