"""Checks of what rows say, not of their form: each sees all rows once, in bounded memory."""

from .survey import Quality, Survey

__all__ = ["Quality", "Survey"]
