"""Process group of one stage: make, pytest and their children."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

from tunesmith_checks.schedule import Stage

# pytest ends its fixtures (clusters, servers) on SIGINT; whoever is left then is killed.
SECONDS_TO_END = 180.0
POLL_SECONDS = 0.2


class StageProcess:
    """A target of the Makefile in a process group of its own, with its output in a file."""

    def __init__(self, stage: Stage, root: Path, log: Path, environment: dict[str, str]) -> None:
        self._log = log
        self._usage: resource.struct_rusage | None = None
        command = ["nice", "-n", str(stage.niceness), "make", "--no-print-directory", stage.name]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Not a session of its own: Linux shares the processors between sessions, whatever their niceness.
                process_group=0,
            )

    def poll(self) -> int | None:
        """The exit code of make, or None while it runs."""
        if self._process.returncode is None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._usage = usage
        return self._process.returncode

    def read_output(self) -> str:
        """All that the stage has printed."""
        return self._log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """Processor time of the stage and of its children that have ended."""
        return self._usage.ru_utime + self._usage.ru_stime if self._usage else 0.0

    def interrupt(self) -> None:
        """Send SIGINT to the group."""
        self._signal(signal.SIGINT)

    def end(self) -> None:
        """Wait for the group to end, and kill what is left of it after a while."""
        deadline = time.monotonic() + SECONDS_TO_END
        while self._group_lives() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._signal(signal.SIGKILL)
        while self._group_lives():
            time.sleep(POLL_SECONDS)

    def _signal(self, number: int) -> None:
        if self._group_lives():
            os.killpg(self._process.pid, number)

    def _group_lives(self) -> bool:
        # Reaps the leader first: a zombie keeps its group.
        self.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
