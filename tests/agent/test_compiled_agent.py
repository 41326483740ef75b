"""Modules of the agent that are compiled in its image."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tunesmith_images.cache import REPOSITORY
from tunesmith_images.compiled_agent import compiled_modules

SOURCES = REPOSITORY / "serving-image/src"
IS_COMPILED = "tunesmith_agent__mypyc" in sys.modules


def source_of(module: str) -> ast.Module:
    return ast.parse((SOURCES / f"{module.replace('.', '/')}.py").read_text())


def interpreted_modules() -> Iterator[str]:
    for path in Path(SOURCES, "tunesmith_agent").rglob("*.py"):
        name = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        if name not in compiled_modules():
            yield name


def classes(module: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(source_of(module)) if isinstance(node, ast.ClassDef)]


def test_no_interpreted_class_inherits_from_a_compiled_one() -> None:
    """It could not be instantiated."""
    compiled = {each.name for module in compiled_modules() for each in classes(module)}
    for module in interpreted_modules():
        for each in classes(module):
            bases = {base.id for base in each.bases if isinstance(base, ast.Name)}
            assert not bases & compiled, f"{module}.{each.name}: compile this module, too"


@pytest.mark.skipif(not IS_COMPILED, reason="the agent is interpreted here")
@pytest.mark.parametrize("module", compiled_modules())
def test_the_compiled_module_is_imported(module: str) -> None:
    file = import_module(module).__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES))
