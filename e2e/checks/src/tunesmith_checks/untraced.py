"""Plugin of coverage: no trace of what other people's libraries do when they are imported, and when a model computes.

Coverage asks for an event of each call and each line, also where the file is not measured. In a process that imports
torch and transformers this takes half as long again, and a quarter where a small model computes. So the trace pauses
there. What the product itself runs in a model, such as an attention function, counts as not covered for that reason.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from coverage.plugin_support import Plugins

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


class UntracedImports:
    """First finder of modules: those outside the checkout are executed without a trace."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = f"{checkout}{os.sep}"

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification that the other finders give, with a loader that pauses the trace."""
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders if hasattr(finder, "find_spec"))
        spec = next((spec for spec in specs if spec), None)
        # Loaders of built-in and frozen modules are classes, and shared.
        if spec and spec.has_location and not self._is_measured(spec) and not isinstance(spec.loader, type):
            loader: Any = spec.loader
            execute = untraced(loader.exec_module)
            loader.exec_module = _execute_layers(execute) if name == LAYERS else execute
        return spec

    def _is_measured(self, spec: ModuleSpec) -> bool:
        return (spec.origin or "").startswith(self._checkout)


def _execute_layers(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def run(module: ModuleType) -> None:
        execute(module)
        layer = getattr(module, LAYER)
        setattr(layer, CALL, untraced(getattr(layer, CALL)))

    return run


def coverage_init(_registry: Plugins, _options: dict[str, str]) -> None:
    """Called by coverage where it starts."""
    if not any(isinstance(finder, UntracedImports) for finder in sys.meta_path):
        sys.meta_path.insert(0, UntracedImports(Path(os.environ["TUNESMITH_CHECKOUT"])))
