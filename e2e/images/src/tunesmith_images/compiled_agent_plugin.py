"""pytest plugin: tests import the agent with compiled modules instead of its sources."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from .compiled_agent import make_compiled_agent

#: The package, and the library that all compiled modules are in.
_NAMES = ("tunesmith_agent", "tunesmith_agent__mypyc")


class _CompiledAgent(MetaPathFinder):
    """Finds the agent in a folder, wherever its sources come in ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the package is; None for all other modules."""
        return PathFinder.find_spec(fullname, [str(self._folder)]) if fullname in _NAMES else None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Compile the agent, and let it be imported; processes that tests start find it, too."""
    folder = make_compiled_agent()
    sys.meta_path.insert(0, _CompiledAgent(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))


def pytest_report_header() -> str:
    """Say which agent is tested."""
    return f"agent: {sys.modules['tunesmith_agent'].__file__}"
