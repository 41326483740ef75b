"""An operator that is forked from a process with its modules loaded, for tests that kill hundreds.

One that starts anew takes one and a half seconds of processor time for its imports; a forked one, none.
"""

import contextlib
import copy
import multiprocessing
import os
import sys
import weakref
from pathlib import Path

from control_plane.restartable_operator import RestartableOperator

from tunesmith_cluster.controlplane import free_ports

_context = multiprocessing.get_context("forkserver")


class Life:
    """One process. It ends with this object at the latest.

    Args:
        arguments: of ``python -m tunesmith``.
        log: its output goes to the end of it.
    """

    def __init__(self, kubeconfig: Path, log: Path, arguments: list[str]) -> None:
        _context.set_forkserver_preload(["tunesmith.process.run"])
        self._process = _context.Process(target=_run_operator, args=(str(kubeconfig), str(log), arguments))
        self._process.start()
        assert self._process.pid is not None
        self._pid = self._process.pid
        self._end = weakref.finalize(self, self._process.kill)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def send(self, number: int) -> None:
        """Send a signal; any thread may do so at any time."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; the exit code, None if it has not ended in time."""
        self._process.join(seconds)
        return self.exit_code


class ForkedOperator(RestartableOperator):
    """The same operator, forked. ``start`` does not wait until it leads.

    Attributes:
        life: the running process, or the last one; None before the first.
        lives: number of starts.
    """

    life: Life | None = None
    lives = 0

    def twin(self) -> "ForkedOperator":
        """Another replica. It shares the TLS port, which only the leader opens."""
        twin = copy.copy(self)
        twin.life = None
        (twin._http_port,) = free_ports(1)
        return twin

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.life is not None and self.life.exit_code is None

    def watch(self, *namespaces: str) -> None:
        """Watch these namespaces from the next start on."""
        self._watch_namespace = ",".join(namespaces)

    def start(self, *more: str) -> None:
        """Start it, with more arguments if given."""
        self._arguments = more
        self._launch()
        self._is_wanted = True

    def _launch(self) -> None:
        self.lives += 1
        arguments = [
            f"--namespace={self.namespace}",
            f"--watch-namespaces={self._watch_namespace}",
            f"--http-port={self._http_port}",
            f"--tls-port={self.tls_port}",
            "--host=127.0.0.1",
            f"--pod-name=operator-{self._http_port}-{self.lives}",
            *self._arguments,
        ]
        self.life = Life(self._kubeconfig, self._log, arguments)

    def _has_ended(self) -> bool:
        return not self.is_running

    def _end(self, number: int) -> None:
        with self._lock:
            self._is_wanted = False
            if self.life is not None:
                self.life.send(number)
                assert self.life.wait(20) is not None


def _run_operator(kubeconfig: str, log: str, arguments: list[str]) -> None:
    from tunesmith.process.run import main

    os.environ["KUBECONFIG"] = kubeconfig
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(descriptor, output)
    code = main(arguments)
    sys.stderr.flush()
    os._exit(code)
