"""Checks of a machine, each in a process of its own: none stops the others, whatever happens to it.

Without torch: a library that is missing or broken fails the checks that need it. This file is also the program of those
processes: ``check_runner.py MODULE:FUNCTION NAME FOLDER`` calls a function and writes what it found.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

#: A check is not started with less time than this.
MIN_SECONDS = 5
_REASON_LENGTH = 300
_MISSING = re.compile(r"No module named '([\w.]+)'")


class Status(StrEnum):
    """Status of a check."""

    OK = "OK"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class Skipped(Exception):
    """Check that this machine or environment can't do; the message says why."""


class CheckFailed(Exception):
    """Check that ran and found a fault; ``numbers`` are what it measured."""

    def __init__(self, message: str, **numbers: Any) -> None:
        super().__init__(message)
        self.numbers = numbers


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: its name in results and on the command line.
        function: ``module:function`` that is called with a ``Place`` and returns numbers by name.
        seconds: limit of its time.
        needs: checks that must be OK before it.
    """

    name: str
    function: str
    seconds: float
    needs: tuple[str, ...] = ()


@dataclass(slots=True)
class Result:
    """Result of a check."""

    name: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The result for people, on one line."""
        shown = (f"{name}={_short(value)}" for name, value in self.numbers.items() if _is_short(value))
        parts = [f"{self.name:<18} {self.status:<8}{self.seconds:7.1f} s", *shown, self.reason]
        return "  ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Place:
    """Folder of a run: work, logs and the results of the checks so far."""

    folder: Path

    def numbers(self, check: str) -> dict[str, Any]:
        """Numbers of an earlier check."""
        found: dict[str, Any] = json.loads(self.result_file(check).read_text())["numbers"]
        return found

    def result_file(self, check: str) -> Path:
        """File with the result of a check."""
        return self.folder / "checks" / f"{check}.json"

    def log_file(self, check: str) -> Path:
        """File with the output of a check."""
        return self.folder / "logs" / f"{check}.log"


def with_needs(checks: Sequence[Check], names: Iterable[str]) -> list[Check]:
    """The named checks and all that they need, in their usual order.

    Raises:
        KeyError: there is no such check.
    """
    by_name = {check.name: check for check in checks}
    wanted, open_names = set(), list(names)
    while open_names:
        check = by_name[open_names.pop()]
        if check.name not in wanted:
            wanted.add(check.name)
            open_names += check.needs
    return [check for check in checks if check.name in wanted]


def run_checks(
    checks: Sequence[Check], place: Place, budget: float, report: Callable[[Sequence[Result]], None]
) -> list[Result]:
    """Run checks one after the other.

    Args:
        checks: the checks.
        place: folder of the run.
        budget: seconds for all checks together; those for which none are left are skipped.
        report: called after each check with the results so far.
    """
    end = time.monotonic() + budget
    results: list[Result] = []
    for check in checks:
        passed = {result.name for result in results if result.status is Status.OK}
        missing = [name for name in check.needs if name not in passed]
        left = end - time.monotonic()
        if missing:
            results.append(Result(check.name, Status.SKIPPED, reason=f"needs {', '.join(missing)}"))
        elif left < MIN_SECONDS:
            results.append(
                Result(check.name, Status.SKIPPED, reason=f"no time left of {budget:.0f} s for all checks")
            )
        else:
            results.append(_run_check(check, place, min(check.seconds, left)))
        report(results)
    return results


def _run_check(check: Check, place: Place, seconds: float) -> Result:
    file, log = place.result_file(check.name), place.log_file(check.name)
    for path in (file, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    start = time.monotonic()
    command = [sys.executable, __file__, check.function, check.name, str(place.folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
        )
        timed_out = not _wait(process, seconds)
    taken = time.monotonic() - start
    if timed_out:
        return Result(check.name, Status.FAILED, taken, f"did not end within {seconds:.0f} s; see {log}")
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        reason = f"ended with {process.returncode} and without a result: {_last_line(log)}"
        return Result(check.name, Status.FAILED, taken, reason)
    return Result(check.name, Status(found["status"]), taken, found["reason"], found["numbers"])


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process; False if it did not end in time and was killed with all that it had started."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        for pid in [*descendants(process.pid), process.pid]:
            _kill(pid)
        process.wait()
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have; launchers put them into sessions of their own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        of_one = children.get(pending.pop(), [])
        found += of_one
        pending += of_one
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return _one_line(lines[-1], keep_end=True) if lines else "no output"


def _one_line(text: str, *, keep_end: bool = False) -> str:
    """Text on one line, cut to a limit: at its start where it ends with what matters, as a log does."""
    line = " ".join(text.split())
    if len(line) <= _REASON_LENGTH:
        return line
    return "… " + line[-_REASON_LENGTH:] if keep_end else line[:_REASON_LENGTH] + " …"


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 40)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def missing_library(message: str) -> str | None:
    """Name of a library that an error, or the log of a process in it, misses; modules of this project are a fault."""
    match = _MISSING.search(message)
    return match[1] if match and not match[1].startswith("tunesmith") else None


def _call(function: str, name: str, folder: Path) -> None:
    """Call the function of a check in this process, and write its result."""
    place = Place(folder)
    module, _, attribute = function.partition(":")
    try:
        numbers = getattr(importlib.import_module(module), attribute)(place)
        result = Result(name, Status.OK, numbers=numbers or {})
    except Skipped as skipped:
        result = Result(name, Status.SKIPPED, reason=_one_line(str(skipped)))
    except CheckFailed as failed:
        result = Result(name, Status.FAILED, reason=_one_line(str(failed)), numbers=failed.numbers)
    except Exception as error:  # any fault of a library is a result
        traceback.print_exc()
        library = missing_library(str(error))
        if library:
            result = Result(name, Status.SKIPPED, reason=f"{library} is not installed")
        else:
            reason = _one_line(f"{type(error).__name__}: {error}", keep_end=True)
            result = Result(name, Status.FAILED, reason=reason)
    place.result_file(name).write_text(json.dumps(asdict(result)))


if __name__ == "__main__":
    # As the module that checks raise the exceptions of.
    importlib.import_module("check_runner")._call(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
