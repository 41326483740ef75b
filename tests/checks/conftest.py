"""The Makefile of the checkout."""

import re

import pytest

from tunesmith_checks.paths import ROOT


@pytest.fixture
def makefile_targets() -> set[str]:
    """Names of the targets that have a line of help."""
    return set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
