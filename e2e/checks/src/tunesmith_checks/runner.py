"""Execution of the stages of a run: start by schedule, printed results, cancellation."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from tunesmith_checks.schedule import Capacity, Stage, choose

SECONDS_BETWEEN_PROGRESS = 60.0


class Process(Protocol):
    """A running stage."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def read_output(self) -> str:
        """All that it has printed."""

    def cpu_seconds(self) -> float:
        """Processor time of the stage and its children, once it has ended."""

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does; returns at once."""

    def end(self) -> None:
        """Return when it has ended with all its children, by force where they take too long."""


class Result(NamedTuple):
    """An ended stage: wall time, mean number of busy cores and exit code of make."""

    name: str
    seconds: float
    cores: float
    code: int


class Runner:
    """Runs stages side by side.

    Args:
        start: starts a stage.
        clock: seconds that only grow.
        wait: blocks for a moment between two looks at the processes.
        say: prints a text at once.
    """

    def __init__(
        self,
        start: Callable[[Stage], Process],
        clock: Callable[[], float],
        wait: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._start, self._clock, self._wait, self._say = start, clock, wait, say
        self._running: dict[Stage, tuple[Process, float]] = {}

    def run(self, stages: Sequence[Stage], capacity: Capacity) -> list[Result]:
        """Run all stages; an interruption ends those that run and is raised again."""
        waiting = list(stages)
        results: list[Result] = []
        began = reported = self._clock()
        try:
            while waiting or self._running:
                ended = self._collect()
                results += ended
                started = choose(waiting, self._running, capacity)
                for stage in started:
                    waiting.remove(stage)
                    self._running[stage] = (self._start(stage), self._clock())
                if ended or started or self._clock() - reported >= SECONDS_BETWEEN_PROGRESS:
                    reported = self._clock()
                    self._say(self._progress(reported - began, waiting))
                if self._running:
                    self._wait()
        finally:
            for process, _ in self._running.values():
                process.interrupt()
            for process, _ in self._running.values():
                process.end()
        return results

    def _collect(self) -> list[Result]:
        ended = [
            (stage, process, since, code)
            for stage, (process, since) in self._running.items()
            if (code := process.poll()) is not None
        ]
        results = []
        for stage, process, since, code in ended:
            del self._running[stage]
            seconds = self._clock() - since
            result = Result(stage.name, seconds, process.cpu_seconds() / max(seconds, 0.1), code)
            self._say(f"\n=== {format_result(result)} ===\n{process.read_output().rstrip()}")
            results.append(result)
        return results

    def _progress(self, seconds: float, waiting: Iterable[Stage]) -> str:
        now = self._clock()
        running = [f"{stage.name} {now - since:.0f} s" for stage, (_, since) in self._running.items()]
        later = [stage.name for stage in waiting]
        line = f"[{seconds:.0f} s] running: {', '.join(running) or 'none'}"
        return f"{line}; to come: {', '.join(later)}" if later else line


def format_result(result: Result) -> str:
    """One line: seconds, name, cores and the outcome."""
    outcome = "ok" if result.code == 0 else "FAILED"
    return f"{result.seconds:8.1f} s  {result.name:20}{result.cores:5.2f} cores  {outcome}"
