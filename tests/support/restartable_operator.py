"""The operator as a process of its own, against a control plane; it may be killed and started again."""

import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

ROOT = Path(__file__).resolve().parents[2]


class RestartableOperator:
    """``python -m tunesmith`` in a namespace of its own, watching given namespaces."""

    def __init__(self, server: ControlPlane, folder: Path, watch_namespace: str) -> None:
        self._server = server
        self._log = folder / "operator.log"
        self._http_port, self.tls_port = _free_port(), _free_port()
        self.namespace = server.namespace("operator")
        self.host_name = f"tunesmith.{self.namespace}.svc"
        self._watch_namespace = watch_namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *more: str) -> None:
        """Start it, with more arguments if given, and wait until it leads."""
        settings = {
            "namespace": self.namespace,
            "watch-namespaces": self._watch_namespace,
            "http-port": str(self._http_port),
            "tls-port": str(self.tls_port),
            "host": "127.0.0.1",
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        paths = [str(ROOT / part / "src") for part in ("operator", "contract")]
        environ = os.environ | {
            "KUBECONFIG": str(self._server.kubeconfig),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tunesmith", *arguments, *more], stdout=log, stderr=log, env=environ
            )
        eventually(self._leads, timeout=60, what="the operator to lead")

    def stop(self) -> None:
        """End it as a kubelet does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None

    def kill(self) -> None:
        """End it as a lost node does, in the middle of anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)
        self._process = None

    def _leads(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended:\n{self._log.read_text()[-4000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return b"tunesmith_leader 1.0" in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
