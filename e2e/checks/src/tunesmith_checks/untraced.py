"""Plugin of coverage: no trace of what other people's libraries do by themselves.

Coverage asks for an event of each call and each line, also where the file is not measured. In a process that imports
torch and transformers this takes half as long again, and a quarter where a small model computes. So the trace pauses
there, and in other functions of libraries that take long. What the product itself runs in a model, such as an attention
function, counts as not covered for that reason.
"""

import copy
import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from coverage.plugin_support import Plugins

from tunesmith_checks.paths import ROOT

P = ParamSpec("P")
T = TypeVar("T")

#: Functions of libraries that are not traced, by module.
PAUSED = {
    "_pytest.assertion.rewrite": ("_rewrite_test",),
    "hypothesis.internal.conjecture.data": ("ConjectureData.draw",),
    "jinja2.environment": ("Environment.compile",),
    "peft.peft_model": ("PeftModel.from_pretrained", "PeftModel.save_pretrained"),
    "torch.nn.modules.module": ("Module.__call__",),
    "transformers.configuration_utils": ("PreTrainedConfig.from_pretrained",),
    "transformers.modeling_utils": ("PreTrainedModel.from_pretrained", "PreTrainedModel.save_pretrained"),
    "transformers.models.auto.auto_factory": (
        "_BaseAutoModelClass.from_config",
        "_BaseAutoModelClass.from_pretrained",
    ),
    "transformers.models.auto.tokenization_auto": ("AutoTokenizer.from_pretrained",),
    "transformers.tokenization_utils_base": (
        "PreTrainedTokenizerBase.apply_chat_template",
        "PreTrainedTokenizerBase.save_pretrained",
    ),
}
#: Functions in these that call functions of tests, which in turn may call the product: the trace goes on there.
RESUMED = {
    "hypothesis.strategies._internal.core": ("BuildsStrategy.do_draw", "CompositeStrategy.do_draw"),
    "hypothesis.strategies._internal.flatmapped": ("FlatMapStrategy.do_draw",),
    "hypothesis.strategies._internal.strategies": (
        "FilteredStrategy.do_filtered_draw",
        "MappedStrategy.do_draw",
        "SampledFromStrategy._transform",
    ),
}

_paused = threading.local()


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """The function, without a trace while it runs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        trace = sys.gettrace()
        if trace is None:
            return function(*args, **kwargs)
        _paused.trace = trace
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            _paused.trace = None
            sys.settrace(trace)

    return run


def traced(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with the trace that an untraced one has paused."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        trace = getattr(_paused, "trace", None)
        if trace is None or sys.gettrace() is not None:
            return function(*args, **kwargs)
        sys.settrace(trace)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(None)
            _paused.trace = trace

    return run


def pause_imports(checkout: Path) -> None:
    """Execute modules outside the checkout without a trace from now on, and what takes long in them."""
    measured = f"{checkout}{os.sep}"
    loader: Any
    for loader in (SourceFileLoader, ExtensionFileLoader):
        loader.exec_module = _choose(loader.exec_module, measured)
    # It is imported before.
    copy.deepcopy = untraced(copy.deepcopy)


def _choose(execute: Callable[[Any, ModuleType], None], measured: str) -> Callable[[Any, ModuleType], None]:
    execute_untraced = untraced(execute)

    @functools.wraps(execute)
    def exec_module(self: SourceFileLoader | ExtensionFileLoader, module: ModuleType) -> None:
        if self.path.startswith(measured):
            execute(self, module)
            return
        execute_untraced(self, module)
        _replace(module, PAUSED, untraced)
        _replace(module, RESUMED, traced)

    return exec_module


def _replace(
    module: ModuleType, functions: Mapping[str, tuple[str, ...]], change: Callable[[Any], Any]
) -> None:
    for path in functions.get(module.__name__, ()):
        owner, _, name = path.rpartition(".")
        holder = vars(module)[owner] if owner else module
        function = vars(holder)[name]
        if isinstance(function, classmethod):
            setattr(holder, name, classmethod(change(function.__func__)))
        else:
            setattr(holder, name, change(function))


def coverage_init(_registry: Plugins, _options: dict[str, str]) -> None:
    """Called by coverage where it starts; in a forked process once more."""
    if not hasattr(SourceFileLoader.exec_module, "__wrapped__"):
        # Some operators of tests have no variables of this name.
        pause_imports(Path(os.environ.get("TUNESMITH_CHECKOUT") or ROOT))
