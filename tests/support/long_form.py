"""The number of cases in the short and the long form of a test."""

from hypothesis import settings


def cases(short: int, long: int) -> int:
    """The number for this run: `long` with --long. Tests without Hypothesis carry the marker `many_cases`."""
    return long if settings.get_current_profile_name() == "long" else short
