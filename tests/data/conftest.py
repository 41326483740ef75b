"""Fixtures of the tests of data preparation."""

from stages.fixtures import *  # noqa: F403
