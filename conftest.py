"""Options of all tests, and their time limits."""

import pytest
from hypothesis import is_hypothesis_test, settings

# Seconds for tests with these fixtures, instead of those of pytest.ini: each worker that trains takes long to start,
# Argilla minutes where its environment is made first, and the machine is busy.
TIMEOUTS = {"world": 600, "shared_world": 600, "models": 600, "argilla": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --long."""
    parser.addoption(
        "--long", action="store_true", help="run tests of many cases in their long form, newly seeded"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples Hypothesis tries before any test module is imported."""
    settings.register_profile("short", derandomize=True, deadline=None, max_examples=50)
    settings.register_profile("long", deadline=None, max_examples=1000)
    settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the long form has; mark tests of many cases and time limits."""
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.many_cases)
        seconds = [TIMEOUTS[name] for name in getattr(item, "fixturenames", ()) if name in TIMEOUTS]
        if seconds and not config.getoption("--long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max(seconds)))
