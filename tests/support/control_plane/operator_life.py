"""One life of the operator: a process that is forked from one with its modules loaded.

An operator that starts anew takes two seconds of processor time for its imports; a forked one, none. It has the
arguments, signals, output and exit code of ``python -m tunesmith`` all the same.
"""

import contextlib
import gc
import multiprocessing
import os
import runpy
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

_context = multiprocessing.get_context("forkserver")


class Life:
    """One process. It ends with this object at the latest.

    Args:
        arguments: of ``python -m tunesmith``.
        log: its output goes to the end of it.
    """

    def __init__(self, kubeconfig: Path, log: Path, arguments: Sequence[str]) -> None:
        _context.set_forkserver_preload(["tunesmith.process.run"])
        self._process = _context.Process(
            target=_run_operator, args=(str(kubeconfig), str(log), list(arguments))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._end = weakref.finalize(self, self._process.kill)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        return self._process.exitcode

    def send(self, number: int) -> None:
        """Send a signal; any thread may do so at any time."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; the exit code, None if it has not ended in time."""
        self._process.join(seconds)
        return self.exit_code


def _run_operator(kubeconfig: str, log: str, arguments: list[str]) -> None:
    # None of the operator's own variables, but the one by which coverage knows the checkout.
    for name in [name for name in os.environ if name.startswith("TUNESMITH_")]:
        if name != "TUNESMITH_CHECKOUT":
            del os.environ[name]
    os.environ["KUBECONFIG"] = kubeconfig
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in (1, 2):
        os.dup2(descriptor, output)
    sys.argv = ["tunesmith", *arguments]
    try:
        runpy.run_module("tunesmith", run_name="__main__")
    except SystemExit as ended:
        # Python's own end would tell of tasks that were left behind, as this does.
        gc.collect()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)
