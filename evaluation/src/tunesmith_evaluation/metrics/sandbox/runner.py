"""Runs of answers' code in confined processes."""

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .confinement import ConfinementUnavailable, Limits, require_machine

#: Size of code and tests together; more is refused.
MAX_PROGRAM_BYTES = 1 << 20
#: Size of all files that a run may write.
MAX_FOLDER_BYTES = 64 << 20
_MAX_REPLY_BYTES = 1 << 16
_START_SECONDS = 30.0
_LOOK_EVERY_SECONDS = 0.05
_CHILD = Path(__file__).parent / "child.py"
#: Nothing of the server's own environment; libraries for numbers would start a thread for each core.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True)
class CodeResult:
    """Result of a run.

    Attributes:
        passed: all tests passed.
        reason: what went wrong; empty if they passed.
    """

    passed: bool
    reason: str = ""


class _Ended(Exception):
    """The run is over: too long, too large, or its process has ended."""


class LocalCodeRunner:
    """Runner in confined processes on this machine.

    Args:
        folder: folder for the runs' own folders; None for the system's.
        memory_bytes: address space of a run.

    Raises:
        ConfinementUnavailable: this machine can't confine a process.
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int = Limits(1).memory_bytes) -> None:
        require_machine()
        self._folder = folder
        self._memory_bytes = memory_bytes

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        """Run code, and then its tests in the same module.

        Args:
            code: Python code of the answer.
            tests: Python code that raises an exception if the answer is wrong.
            timeout_seconds: time for both.

        Raises:
            ConfinementUnavailable: the kernel refused to confine the process; nothing was run.
        """
        if len(code.encode()) + len(tests.encode()) > MAX_PROGRAM_BYTES:
            return CodeResult(False, f"code and tests are larger than {MAX_PROGRAM_BYTES:,} bytes")
        limits = Limits(cpu_seconds=int(timeout_seconds) + 1, memory_bytes=self._memory_bytes)
        proof = secrets.token_hex(16)
        with _own_folder(self._folder) as folder, _start(folder) as process:
            talk = _Talk(process, folder)
            try:
                ready = talk.ask(asdict(limits), _START_SECONDS)
                if "ready" not in ready:
                    raise ConfinementUnavailable(str(ready.get("unavailable", "the process did not start")))
                deadline = time.monotonic() + timeout_seconds
                reply = talk.ask({"code": code}, timeout_seconds)
                if reply.get("ran"):
                    reply = talk.ask({"tests": tests, "proof": proof}, deadline - time.monotonic())
            except _Ended as error:
                return CodeResult(False, str(error))
        if reply.get("passed") == proof:
            return CodeResult(True)
        return CodeResult(False, str(reply.get("failed", "the code wrote a reply of its own"))[:500])


class _Talk:
    """Lines of JSON to and from a confined process."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._received = b""

    def ask(self, members: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Reply to a request.

        Raises:
            _Ended: there is none.
        """
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds
        try:
            self._process.stdin.write(json.dumps(members).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _Ended(self._describe_end()) from None
        try:
            value = json.loads(self._read_line(deadline, seconds))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def _read_line(self, deadline: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if time.monotonic() > deadline:
                    raise _Ended(f"it took longer than {seconds:.3g} seconds")
                if _size(self._folder) > MAX_FOLDER_BYTES or len(self._received) > _MAX_REPLY_BYTES:
                    raise _Ended("it wrote too much")
                if selector.select(min(_LOOK_EVERY_SECONDS, max(0.0, deadline - time.monotonic()))):
                    data = os.read(self._process.stdout.fileno(), _MAX_REPLY_BYTES)
                    if not data:
                        raise _Ended(self._describe_end())
                    self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its results"
        if code == -signal.SIGXCPU or code == -signal.SIGKILL:
            return "it used too much processor time or memory"
        return f"its process ended with {code}"


@contextmanager
def _start(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Process that confines itself; killed at the end. It can't have started others."""
    process = subprocess.Popen(
        [sys.executable, "-s", "-P", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout):
            try:
                assert stream is not None
                stream.close()
            except OSError:
                pass  # a request that was never read
        process.wait()


@contextmanager
def _own_folder(parent: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        if os.geteuid() == 0:
            folder.chmod(0o777)  # for nobody
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    """Size of all files in a folder that may be changing."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512 + 4096
            except OSError:
                continue
    return total
