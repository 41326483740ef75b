"""Runs a function in a process of its own, which gives its memory back when it is done."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def call_apart(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """What the function returns; function, arguments and result have to be picklable.

    Torch and what comes with it take half a gigabyte and never give it back. Where it is loaded already there is
    nothing to save, and the function is called at once.

    Raises:
        Exception: what the function raises.
    """
    if "torch" in sys.modules:
        return function(*args, **kwargs)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()
