"""Background processes that outlive their command, ended by recorded identity."""

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith_cluster.errors import ClusterError

LOG_TAIL_LINES = 15
_SETPRIV = "/usr/bin/setpriv"
_BIND_SECONDS = 10.0


@dataclass(frozen=True)
class ProcessRecord:
    """One process that we started. `started` is in clock ticks after boot: a pid alone may be reused."""

    name: str
    pid: int
    started: int
    log: str


def start_time(pid: int) -> int | None:
    """Start time of a living process in clock ticks, None for one that is gone or only waits to be reaped."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def parent(pid: int) -> int | None:
    """The process that `pid` belongs to, None where it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name, from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _wait_until_bound(pid: int) -> None:
    """Wait until setpriv has become the command: if this process died earlier, nothing would end the new one."""
    deadline = time.monotonic() + _BIND_SECONDS
    # For a moment of each exec the kernel shows no command line.
    while start_time(pid) is not None and _program(pid) in ("", _SETPRIV) and time.monotonic() < deadline:
        time.sleep(0.001)


def _program(pid: int) -> str:
    """The first word of a process's command line; empty where it has none, as one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(record: ProcessRecord) -> bool:
    """True if this very process still runs."""
    return start_time(record.pid) == record.started


def log_tail(path: str | Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    try:
        text = Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (the log is empty)"


def stop_process(record: ProcessRecord, grace: float) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds; nothing where the pid is another process by now."""
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(record):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not _wait_for_exit(handle, grace):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                _wait_for_exit(handle, grace)
    finally:
        os.close(handle)
    _reap(record.pid)


def kill_and_wait(pid: int, timeout: float = 10) -> None:
    """SIGKILL, and wait until the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        _wait_for_exit(handle, timeout)
    finally:
        os.close(handle)


def _wait_for_exit(handle: int, timeout: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _reap(pid: int) -> None:
    """A child of the calling process stays a zombie until it is waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def find_left_over(marker: str) -> list[str]:
    """Pid and command line of all other processes that mention `marker`, such as a state folder."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker in command and int(folder.name) != os.getpid():
            processes.append(f"{folder.name} {command.strip()}")
    return processes


class ProcessTable:
    """The processes of one cluster, recorded in a file so that a later command can end them."""

    def __init__(self, state: Path) -> None:
        self._path = state / "processes.json"
        self._logs = state / "logs"

    def records(self) -> list[ProcessRecord]:
        """All that was started, in the order of starting."""
        try:
            entries = json.loads(self._path.read_text())
        except FileNotFoundError:
            return []
        return [ProcessRecord(**entry) for entry in entries]

    def start(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, bound: bool = False
    ) -> ProcessRecord:
        """Start `command` detached, with its output in a log. A bound process dies with its starter."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        argv = [_SETPRIV, "--pdeathsig", "KILL", "--", *command] if bound else list(command)
        pid = os.posix_spawn(
            argv[0],
            argv,
            {**os.environ, **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
        record = ProcessRecord(name, pid, start_time(pid) or 0, str(log))
        self.replace([*self.records(), record])
        if bound:
            _wait_until_bound(pid)
        return record

    def wait_until(self, record: ProcessRecord, ready: Callable[[], bool], timeout: float) -> None:
        """Poll until the component is ready.

        Raises:
            ClusterError: it died or did not get ready in time; the message ends with the log's tail.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not is_alive(record):
                _reap(record.pid)
                raise ClusterError(_failure(record, "ended while it was starting"))
            if time.monotonic() > deadline:
                raise ClusterError(_failure(record, f"was not ready within {timeout:.0f} s"))
            time.sleep(0.03)

    def dead(self) -> list[ProcessRecord]:
        """Those that should run and do not."""
        return [record for record in self.records() if not is_alive(record)]

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Context in which the process `name` is stopped, as if its machine were unreachable.

        Raises:
            ClusterError: it does not run.
        """
        running = (record for record in self.records() if record.name == name and is_alive(record))
        record = next(running, None)
        if record is None:
            raise ClusterError(f"{name} does not run: there is nothing to pause")
        handle = os.pidfd_open(record.pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
            yield
        finally:
            signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)

    def stop(self, name: str, grace: float) -> list[str]:
        """End one process and forget it; returns its command.

        Raises:
            ClusterError: it does not run.
        """
        running = (record for record in self.records() if record.name == name and is_alive(record))
        record = next(running, None)
        if record is None:
            raise ClusterError(f"{name} does not run: there is nothing to stop")
        command = Path(f"/proc/{record.pid}/cmdline").read_text().rstrip("\0").split("\0")
        stop_process(record, grace)
        self.replace([other for other in self.records() if other != record])
        return command

    def stop_all(self, grace: float, keep: str = "") -> None:
        """End what we started, last first, and forget it; all but the process named `keep`."""
        records = self.records()
        for record in reversed(records):
            if record.name != keep:
                stop_process(record, grace)
                records.remove(record)
                self.replace(records)

    def replace(self, records: list[ProcessRecord]) -> None:
        """Make these the recorded processes, all or nothing."""
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps([asdict(record) for record in records], indent=1))
        draft.replace(self._path)


def _failure(record: ProcessRecord, problem: str) -> str:
    return f"{record.name} {problem}. The end of its log {record.log}:\n{log_tail(record.log)}"
