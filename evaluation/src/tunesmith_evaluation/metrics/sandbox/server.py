"""Server that runs answers' code for a pod's other container, over a Unix socket.

One line of JSON each way: ``{"code", "tests", "timeoutSeconds"}`` and ``{"passed", "reason"}`` or ``{"unavailable"}``.
"""

import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .confinement import ConfinementUnavailable
from .runner import MAX_PROGRAM_BYTES, CodeResult

MAX_TIMEOUT_SECONDS = 600.0
#: JSON writes a byte as up to six.
_MAX_REQUEST_BYTES = 6 * MAX_PROGRAM_BYTES + 4096
#: Time for the server to start.
START_SECONDS = 120
#: Time for a run to start and for others before it.
_WAIT_SECONDS = 600.0


class ServedRunner(Protocol):
    """Runner of code: ``LocalCodeRunner`` or ``RefusedRunner``."""

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        """Run code, and then its tests.

        Raises:
            ConfinementUnavailable: processes can't be confined; nothing was run.
        """


class RefusedRunner:
    """Runner on a machine that can't confine processes: it runs nothing and says why.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        """Run nothing.

        Raises:
            ConfinementUnavailable: always.
        """
        raise ConfinementUnavailable(self._reason)


class SandboxServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Server on a Unix socket, which it replaces.

    Args:
        path: path of the socket.
        runner: runs the code, or says why it can't be run.
        parallel: number of runs at the same time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, runner: ServedRunner, parallel: int) -> None:
        self.runner = runner
        self.turn = threading.BoundedSemaphore(parallel)
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Handler)
        os.chmod(path, 0o660)


class SocketCodeRunner:
    """Runner by a server on a Unix socket.

    Args:
        path: path of the socket.
        sleep: waits for a number of seconds.
    """

    def __init__(self, path: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self._path, self._sleep = path, sleep

    def wait(self) -> None:
        """Wait for the server to start.

        Raises:
            ConfinementUnavailable: it has not started in time.
        """
        for _ in range(START_SECONDS):
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.connect(str(self._path))
                return
            except OSError:
                self._sleep(1)
        raise ConfinementUnavailable(
            f"the sandbox did not start within {START_SECONDS} seconds: see the log of the container sandbox"
        )

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        """Run code, and then its tests.

        Raises:
            ConfinementUnavailable: the server is away, or can't confine processes.
        """
        request = {"code": code, "tests": tests, "timeoutSeconds": timeout_seconds}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout_seconds + _WAIT_SECONDS)
                connection.connect(str(self._path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    reply = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise ConfinementUnavailable(f"no sandbox at {self._path}: {error}") from error
        if "unavailable" in reply:
            raise ConfinementUnavailable(str(reply["unavailable"]))
        return CodeResult(bool(reply["passed"]), str(reply["reason"]))


class _Handler(socketserver.StreamRequestHandler):
    server: SandboxServer

    def handle(self) -> None:
        """Answer one request."""
        self.wfile.write(json.dumps(self._reply()).encode() + b"\n")

    def _reply(self) -> dict[str, Any]:
        line = self.rfile.readline(_MAX_REQUEST_BYTES)
        try:
            request = json.loads(line)
            code, tests = str(request["code"]), str(request["tests"])
            seconds = min(float(request["timeoutSeconds"]), MAX_TIMEOUT_SECONDS)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return {"passed": False, "reason": f"not a request, or too large: {type(error).__name__}"}
        try:
            with self.server.turn:
                result = self.server.runner.run(code, tests, seconds)
        except ConfinementUnavailable as error:
            return {"unavailable": str(error)}
        return {"passed": result.passed, "reason": result.reason}
