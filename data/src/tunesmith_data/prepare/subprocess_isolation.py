"""Function calls in a separate process, whose memory is released afterwards.

Torch and what comes with it take half a gigabyte and never give it back, so what needs it is kept out of a process that
streams rows. Where torch is loaded already there is nothing to save, and no process is started.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Held = TypeVar("Held")

#: The one object that a child process keeps for its parent.
_HELD: list[Any] = []


class IsolatedObject(Generic[Held]):
    """Handle for an object in this process or another one.

    Args:
        call: calls a function with the object before the arguments.
    """

    def __init__(self, call: Callable[..., "Future[Any]"]) -> None:
        self._call = call

    def submit(
        self,
        function: Callable[Concatenate[Held, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> "Future[Result]":
        """Call a function with the object before the arguments; calls are made one by one, in their order.

        Function, arguments and result have to be picklable; the future raises what the function raises, or
        BrokenProcessPool where the process was killed.
        """
        return self._call(function, *args, **kwargs)


def call_isolated(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Result of a function in a separate process; function, arguments and result must be picklable.

    Raises:
        Exception: what the function raises.
        BrokenProcessPool: the process was killed.
    """
    if "torch" in sys.modules:
        return function(*args, **kwargs)
    with _start_process(()) as process:
        return process.submit(function, *args, **kwargs).result()


@contextmanager
def hold_isolated(
    build: Callable[Arguments, Held], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Iterator[IsolatedObject[Held]]:
    """Object in a separate process that cannot import torch; the process ends with the block.

    Raises:
        Exception: what ``build`` raises.
        BrokenProcessPool: the process was killed.
    """
    if "torch" in sys.modules:
        yield IsolatedObject(partial(_call_here, build(*args, **kwargs)))
        return
    with _start_process(("torch",)) as process:
        process.submit(_build_held, build, *args, **kwargs).result()
        submit: Callable[..., Future[Any]] = process.submit
        yield IsolatedObject(partial(submit, _call_held))


def _start_process(hidden: tuple[str, ...]) -> ProcessPoolExecutor:
    """Pool of one process.

    Args:
        hidden: modules that can't be imported there.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_initialize_process, initargs=(hidden,))


def _call_here(held: Held, function: Callable[..., Result], *args: Any, **kwargs: Any) -> "Future[Result]":
    called: Future[Result] = Future()
    try:
        called.set_result(function(held, *args, **kwargs))
    except Exception as error:
        called.set_exception(error)
    return called


def _initialize_process(hidden: tuple[str, ...]) -> None:
    """Initialize the new process."""
    # Ctrl-C ends the parent process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    if "torch" in hidden:
        # Transformers would say that models can't be loaded: they are not wanted.
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"


def _exit_with_parent() -> None:
    """Exit when the parent ends: the pool of a killed parent would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _build_held(build: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    _HELD[:] = [build(*args, **kwargs)]


def _call_held(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    return function(*_HELD, *args, **kwargs)
