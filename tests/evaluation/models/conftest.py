"""Fixtures of the tests of models that answer in this process."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def tokenizer(models: Path) -> Any:
    """Tokenizer of the tiny Llama."""
    return AutoTokenizer.from_pretrained(models / "llama")
