"""Plugin of coverage: no trace of what other people's libraries do when they are imported, and when a model computes.

Coverage asks for an event of each call and each line, also where the file is not measured. In a process that imports
torch and transformers this takes half as long again, and a quarter where a small model computes. So the trace pauses
there. What the product itself runs in a model, such as an attention function, counts as not covered for that reason.
"""

import functools
import os
import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from coverage.plugin_support import Plugins

from tunesmith_checks.paths import ROOT

P = ParamSpec("P")
T = TypeVar("T")

# The module that has the class of all layers, and what each layer runs when it is called.
LAYERS, LAYER, CALL = "torch.nn.modules.module", "Module", "__call__"


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """The function, without a trace while it runs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        trace = sys.gettrace()
        if trace is None:
            return function(*args, **kwargs)
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(trace)

    return run


def pause_imports(checkout: Path) -> None:
    """Execute modules outside the checkout without a trace from now on."""
    measured = f"{checkout}{os.sep}"
    loader: Any
    for loader in (SourceFileLoader, ExtensionFileLoader):
        loader.exec_module = _choose(loader.exec_module, measured)


def _choose(execute: Callable[[Any, ModuleType], None], measured: str) -> Callable[[Any, ModuleType], None]:
    execute_untraced = untraced(execute)

    @functools.wraps(execute)
    def exec_module(self: SourceFileLoader | ExtensionFileLoader, module: ModuleType) -> None:
        if self.path.startswith(measured):
            execute(self, module)
            return
        execute_untraced(self, module)
        if module.__name__ == LAYERS:
            layer = getattr(module, LAYER)
            setattr(layer, CALL, untraced(getattr(layer, CALL)))

    return exec_module


def coverage_init(_registry: Plugins, _options: dict[str, str]) -> None:
    """Called by coverage where it starts; in a forked process once more."""
    if not hasattr(SourceFileLoader.exec_module, "__wrapped__"):
        # Some operators of tests have no variables of this name.
        pause_imports(Path(os.environ.get("TUNESMITH_CHECKOUT") or ROOT))
