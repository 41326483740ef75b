"""The operator as a process of its own, for tests against a real API server."""

import http.client
import re
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from control_plane.operator_life import Life

from tunesmith_cluster.client import eventually
from tunesmith_cluster.controlplane import free_ports

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Process(Protocol):
    """A process of the operator, however it was started: see ``Life``."""

    @property
    def pid(self) -> int: ...

    @property
    def exit_code(self) -> int | None: ...

    def send(self, number: int) -> None: ...

    def wait(self, seconds: float) -> int | None: ...


class OperatorProcess:
    """One replica; ``log`` is its log file."""

    def __init__(self, process: Process, http_port: int, tls_port: int, log: Path) -> None:
        self.process = process
        self.http_port = http_port
        self.tls_port = tls_port
        self.log = log

    def read(self, path: str) -> tuple[int, str]:
        """Status and text of a plain GET; status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def post(
        self, path: str, body: str, headers: Mapping[str, str], authority: str, host: str
    ) -> tuple[int, str]:
        """Status and text of a POST to the TLS port, whose certificate must be of this authority for this host."""
        context = ssl.create_default_context(cadata=authority)
        connection = http.client.HTTPConnection("127.0.0.1", self.tls_port, timeout=10)
        try:
            raw = socket.create_connection(("127.0.0.1", self.tls_port), timeout=10)
            connection.sock = context.wrap_socket(raw, server_hostname=host)
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def is_leading(self) -> bool:
        """Whether this replica says that it leads."""
        return "tunesmith_leader 1.0" in self.read("/metrics")[1]

    def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: it has ended; holds the end of its log.
        """
        eventually(self._is_ready_or_ended, START_SECONDS, what="the operator's start")
        if self.process.exit_code is not None:
            raise RuntimeError(f"the operator has ended:\n{self.log.read_text()[-4000:]}")

    def wait_leading(self) -> None:
        """Wait until it leads."""
        self.wait_ready()
        eventually(self.is_leading, START_SECONDS, what="the operator's lead")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; returns the exit status.

        Raises:
            TimeoutError: it did not end.
        """
        self.process.send(number)
        code = self.process.wait(STOP_SECONDS)
        if code is None:
            raise TimeoutError(f"signal {number} did not end the operator in {STOP_SECONDS:g} s")
        return code

    def _is_ready_or_ended(self) -> bool:
        return self.process.exit_code is not None or self.read("/readyz")[0] == 200


def listening(http_port: int, tls_port: int) -> tuple[str, ...]:
    """Arguments by which the operator listens on these ports of loopback."""
    return ("--host=127.0.0.1", f"--http-port={http_port}", f"--tls-port={tls_port}")


@contextmanager
def operator_process(
    kubeconfig: Path, folder: Path, name: str = "operator", **settings: str
) -> Iterator[OperatorProcess]:
    """Run the operator within the block; it must leave no task behind.

    Args:
        folder: for its log.
        settings: as in ``tunesmith.process.settings``, such as ``watch_namespaces="a,b"``.
    """
    http_port, tls_port = free_ports(2)
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    log = folder / f"{name}.log"
    process = Life(kubeconfig, log, [*listening(http_port, tls_port), f"--pod-name={name}", *arguments])
    operator = OperatorProcess(process, http_port, tls_port, log)
    try:
        yield operator
    finally:
        if process.exit_code is None:
            operator.stop()
    assert not re.search(r"Task was destroyed|never retrieved|never awaited", log.read_text())
