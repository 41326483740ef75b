"""The operator as a process of its own that may be killed and started again."""

import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from control_plane.operator_process import OperatorProcess, launch
from control_plane.pod_credentials import read_authority

from tunesmith_cluster.controlplane import free_ports
from tunesmith_cluster.fake import ControlPlane


class RestartableOperator:
    """``python -m tunesmith`` in a namespace of its own, watching given namespaces, on the same ports each time."""

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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *more: str) -> None:
        """Start it, with more arguments if given, and wait until it leads."""
        arguments = [f"--namespace={self.namespace}", f"--watch-namespaces={self._watch_namespace}", *more]
        process = launch(self._kubeconfig, self._log, self._http_port, self.tls_port, arguments)
        self._running = OperatorProcess(process, self._http_port, self.tls_port, self._log)
        self._running.wait_leading()

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
        return self._running is not None and self._running.process.poll() is not None

    def post(self, path: str, body: str, token: str) -> int:
        """Status of a POST to the TLS port with a pod's token."""
        assert self._running is not None
        headers = {"Authorization": f"Bearer {token}"}
        authority = read_authority(self._server, self.namespace)
        return self._running.post(path, body, headers, authority, self.host_name)[0]

    def stop(self) -> None:
        """End it as a kubelet does."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def kill(self) -> None:
        """End it as a lost node does, in the middle of anything."""
        assert self._running is not None
        self._running.stop(signal.SIGKILL)
        self._running = None
