"""An operator that is killed and started hundreds of times, and that has a twin."""

import copy
import signal

from control_plane.operator_life import Life
from control_plane.operator_process import listening
from control_plane.restartable_operator import RestartableOperator

from tunesmith_cluster.controlplane import free_ports


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
    def has_ended(self) -> bool:
        """True where its process has ended, or was never started."""
        return not self.is_running

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
            *listening(self._http_port, self.tls_port),
            f"--pod-name=operator-{self._http_port}-{self.lives}",
            *self._arguments,
        ]
        self.life = Life(self._kubeconfig, self._log, arguments)

    def kill(self) -> None:
        """End it as a lost node does, in the middle of anything; its lease runs out by itself."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        with self._lock:
            self._is_wanted = False
            if self.life is not None:
                self.life.send(number)
                assert self.life.wait(20) is not None
