"""Pins that only x86-64 has carry a marker; all others hold on ARM64 as well."""

import pytest

from tunesmith_images.architectures import mark_pins
from tunesmith_images.cache import REPOSITORY

LOCK = """intel-openmp==2024.2.1 \\
    --hash=sha256:aa
torch==2.13.0 \\
    --hash=sha256:bb
uvicorn[standard]==0.54.0 ; python_version < "4" \\
    --hash=sha256:cc
"""


def test_a_pin_that_arm64_does_without_is_marked() -> None:
    marked = mark_pins(LOCK, "torch==2.13.0\nuvicorn[standard]==0.54.0\n")
    line, *rest = marked.splitlines(keepends=True)
    assert line == 'intel-openmp==2024.2.1 ; platform_machine == "x86_64" \\\n'
    assert rest == LOCK.splitlines(keepends=True)[1:]


@pytest.mark.parametrize("other", ["torch==2.12.0\n", "torch==2.13.0\narm-only==1\n"])
def test_other_versions_on_arm64_are_refused(other: str) -> None:
    with pytest.raises(ValueError, match=r"ARM64 needs (torch==2\.12\.0|arm-only==1)"):
        mark_pins(LOCK, other)


def test_what_intel_makes_is_not_installed_on_arm64() -> None:
    lines = (REPOSITORY / "serving-image/requirements-engine.txt").read_text().splitlines()
    intel = [line for line in lines if line.startswith("intel-")]
    assert intel
    assert all('platform_machine == "x86_64"' in line for line in intel)
