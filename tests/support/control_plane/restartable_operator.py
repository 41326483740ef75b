"""The operator as a process of its own that may be killed, and is started again as by a kubelet."""

import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from control_plane.operator_life import Life
from control_plane.operator_process import OperatorProcess, Process, listening
from control_plane.pod_credentials import read_authority

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.controlplane import free_ports
from tunesmith_cluster.fake import ControlPlane

#: How often the kubelet looks.
LOOK_SECONDS = 0.5


def odd_ends(log: str) -> list[str]:
    """Lines of a log by which an operator has ended itself, but for the loss of its lease, which has to end it."""
    ends = [line for line in log.splitlines() if '"the operator ends' in line]
    return [line for line in ends if "could not be renewed" not in line and "leads now" not in line]


class RestartableOperator:
    """The operator in a namespace of its own, watching given namespaces, on the same ports each time.

    Within the block it starts again whenever it ends by itself, as in a cluster: a slow machine may cost it its lease.
    """

    def __init__(
        self,
        server: ControlPlane,
        folder: Path,
        watch_namespace: str,
        kubeconfig: Path | None = None,
        namespace: str = "",
    ) -> None:
        self._server = server
        self._kubeconfig = kubeconfig or server.kubeconfig
        self._log = folder / "operator.log"
        self._http_port, self.tls_port = free_ports(2)
        self.namespace = namespace or server.namespace("operator")
        self.host_name = f"tunesmith.{self.namespace}.svc"
        self._watch_namespace = watch_namespace
        self._running: OperatorProcess | None = None
        self._arguments: tuple[str, ...] = ()
        self._lock, self._is_wanted, self._over = threading.RLock(), False, threading.Event()
        self._kubelet: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        self._kubelet = threading.Thread(target=self._keep_alive, name="kubelet", daemon=True)
        self._kubelet.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._kubelet is not None:
            self._kubelet.join()
        self.stop()
        if kind is None:
            assert not odd_ends(self.log)

    def start(self, *more: str) -> None:
        """Start it, with more arguments if given, and wait until it leads."""
        self._arguments = more
        self._launch()
        assert self._running is not None
        self._running.wait_leading()
        self._is_wanted = True

    @property
    def log(self) -> str:
        """What all lives have logged."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def metrics(self) -> str:
        """Its metrics in Prometheus' text format."""
        assert self._running is not None
        return self._running.read("/metrics")[1]

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._running is not None
        return self._running.process.pid

    @property
    def has_ended(self) -> bool:
        """True where its process has ended by itself."""
        return self._running is not None and self._running.process.exit_code is not None

    def post(self, path: str, body: str, token: str) -> int:
        """Status of a POST to the TLS port with a pod's token."""
        assert self._running is not None
        headers = {"Authorization": f"Bearer {token}"}
        authority = read_authority(self._server, self.namespace)
        return self._running.post(path, body, headers, authority, self.host_name)[0]

    def stop(self) -> None:
        """End it as a kubelet does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a lost node does, in the middle of anything, and free its lease, as if 15 seconds had passed.

        ``test_election.py`` shows that another one waits so long.
        """
        self._end(signal.SIGKILL)
        self.free_lease()

    def free_lease(self) -> None:
        """Let the next operator lead at once: this one is dead for certain."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/tunesmith"
        try:
            self._server.api.merge(path, {"spec": {"holderIdentity": ""}})
        except ApiError as error:
            if error.status != 404:
                raise

    def _launch(self) -> None:
        arguments = [
            f"--namespace={self.namespace}",
            f"--watch-namespaces={self._watch_namespace}",
            *listening(self._http_port, self.tls_port),
            *self._arguments,
        ]
        process = self._start_process(arguments)
        self._running = OperatorProcess(process, self._http_port, self.tls_port, self._log)

    def _start_process(self, arguments: list[str]) -> Process:
        return Life(self._kubeconfig, self._log, arguments)

    def _end(self, number: int) -> None:
        with self._lock:
            self._is_wanted = False
            if self._running is not None:
                self._running.stop(number)
                self._running = None

    def _keep_alive(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                if self._is_wanted and self.has_ended:
                    self._launch()
