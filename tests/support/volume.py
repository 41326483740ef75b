"""How many cases a test of volume tries."""

from hypothesis import settings


def cases(short: int, long: int) -> int:
    """The number for this run: `long` with --long. Mark tests that Hypothesis does not run with `volume`."""
    return long if settings.get_current_profile_name() == "long" else short
