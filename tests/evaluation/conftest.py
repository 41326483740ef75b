"""Fixtures of the tests of evaluation."""

from stages.fixtures import *  # noqa: F403
