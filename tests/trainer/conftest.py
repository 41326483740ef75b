"""Fixtures of the trainer's tests."""

from stages.fixtures import *  # noqa: F403
