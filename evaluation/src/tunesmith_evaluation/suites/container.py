"""Users' containers that score answers: a container beside this one, or a process on this machine."""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.evaluation_container import (
    DONE_FILE,
    EXIT_UNSUPPORTED,
    FAILURE_FILE,
    FOLDER_ENV,
    INPUT,
    OUTPUT,
    PROGRESS_FILE,
    ContainerConfig,
    ContainerFailure,
    ContainerItem,
    ContainerProgress,
)

from .container_files import ContainerScores, holds, read_note, read_scores, write_input, written_at

POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic time in seconds, and waiting."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


class ScoringProgram(ABC):
    """Program of a user's container."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs, or where it can't be known."""


class ContainerBeside(ScoringProgram):
    """A container of the same pod, which shows nothing but its files."""

    def exit_code(self) -> int | None:
        """None: kubelet tells it nobody in the pod."""
        return None


class LocalProcess(ScoringProgram):
    """A process of this machine, without any variables of this process but ``PATH``."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, command: Sequence[str], folder: Path) -> "Iterator[LocalProcess]":
        """The running program; it is ended with the context.

        Args:
            command: program and arguments.
            folder: folder that holds ``input`` and ``output``.

        Raises:
            OSError: it can't be started.
        """
        variables = {"PATH": os.environ.get("PATH", os.defpath), FOLDER_ENV: str(folder)}
        process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            yield cls(process)
        finally:
            process.kill()
            process.wait()

    def exit_code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()


def make_folders(folder: Path) -> None:
    """Make the folders of an exchange on this machine."""
    for name in (INPUT, OUTPUT):
        (folder / name).mkdir(parents=True)


def score_with_container(
    folder: Path,
    config: ContainerConfig,
    items: Sequence[ContainerItem],
    program: ScoringProgram,
    report: Callable[[int], None] = lambda done: None,
    clock: Clock | None = None,
) -> ContainerScores:
    """Hand items and answers to a container, and read its scores when it is done.

    A container that fails, or is too slow, leaves items without scores; its suite then passes no gate.

    Args:
        folder: folder that holds ``input`` and ``output``.
        config: the task of the container.
        items: items with the answers of all sides.
        program: the program that scores.
        report: called with the number of scores so far.
        clock: time; the machine's own by default.
    """
    if any((folder / OUTPUT).iterdir()):
        return read_scores(folder, config.sides, items, "the container wrote output before it had any input")
    write_input(folder, config, items)
    problem = _wait(folder, config, program, report, clock or Clock())
    return read_scores(folder, config.sides, items, problem)


def _wait(
    folder: Path,
    config: ContainerConfig,
    program: ScoringProgram,
    report: Callable[[int], None],
    clock: Clock,
) -> str:
    """Wait for the end of the scores; the reason why there is none, else empty."""
    start = last_sign = clock.now()
    sign = written_at(folder, PROGRESS_FILE)
    while True:
        # Before the files are looked at: a program writes them before it ends.
        code = program.exit_code()
        if (failure := read_note(folder, FAILURE_FILE, ContainerFailure)) is not None:
            return f"the container gave up: {failure.message}"
        if holds(folder, DONE_FILE):
            return ""
        if code is not None:
            return _describe_exit(code)
        now = clock.now()
        if (newest := written_at(folder, PROGRESS_FILE)) != sign:
            sign, last_sign = newest, now
            if (progress := read_note(folder, PROGRESS_FILE, ContainerProgress)) is not None:
                report(progress.done)
        if now - start > config.timeout_seconds:
            return f"the container did not finish within {config.timeout_seconds:,} seconds"
        if now - last_sign > config.heartbeat_seconds:
            return f"the container has not written {PROGRESS_FILE} for {config.heartbeat_seconds:,} seconds"
        clock.wait(POLL_SECONDS)


def _describe_exit(code: int) -> str:
    if code == EXIT_UNSUPPORTED:
        return f"the container does not know this version of the contract (exit code {EXIT_UNSUPPORTED})"
    return f"the container ended with exit code {code} without writing {DONE_FILE}"
