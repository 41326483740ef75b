"""The operator's list of architectures is the installed engine's."""

import os
import subprocess
from pathlib import Path

import pytest

ENGINE_PYTHON = os.environ.get("TUNESMITH_ENGINE_PYTHON", "")
ROOT = Path(__file__).parents[2]


@pytest.mark.engine
@pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine")
def test_the_list_is_current() -> None:
    script = ROOT / "serving-image/adapter_architectures.py"
    printed = subprocess.run([ENGINE_PYTHON, script], check=True, capture_output=True, text=True).stdout
    assert (
        printed == (ROOT / "operator/src/tunesmith/decide/fit/generated/engine_architectures.py").read_text()
    )
