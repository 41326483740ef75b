"""Stages on a clock that is moved by hand."""

from dataclasses import dataclass, field

import pytest

from tunesmith_checks.runner import SECONDS_BETWEEN_PROGRESS, Runner
from tunesmith_checks.schedule import Capacity, Stage

TWO_CORES = Capacity(cores=2, gigabytes=8)


@dataclass
class FakeProcess:
    """Ends by itself at a time, with a code."""

    machine: "Machine"
    name: str
    ends: float
    code: int
    stopped: list[str] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code if self.machine.now >= self.ends else None

    def read_output(self) -> str:
        return f"output of {self.name}\n"

    def cpu_seconds(self) -> float:
        return 5.0

    def interrupt(self) -> None:
        self.stopped.append("interrupt")

    def end(self) -> None:
        # All are interrupted before anyone is waited for.
        assert all("interrupt" in process.stopped for process in self.machine.running())
        self.stopped.append("end")


class Machine:
    """A clock and what was started on it."""

    def __init__(self, interrupted_at: float = float("inf"), **codes: int) -> None:
        self.now = 0.0
        self.codes = codes
        self.interrupted_at = interrupted_at
        self.processes: dict[str, FakeProcess] = {}
        self.began: dict[str, float] = {}
        self.printed: list[str] = []
        self.runner = Runner(self.start, lambda: self.now, self.wait, self.printed.append)

    def start(self, stage: Stage) -> FakeProcess:
        self.began[stage.name] = self.now
        # The last letters of a name are its seconds.
        seconds = float(stage.name.split("-")[1])
        process = FakeProcess(self, stage.name, self.now + seconds, self.codes.get(stage.name[0], 0))
        self.processes[stage.name] = process
        return process

    def wait(self) -> None:
        self.now += 1
        if self.now >= self.interrupted_at:
            raise KeyboardInterrupt

    def running(self) -> list[FakeProcess]:
        return [process for process in self.processes.values() if process.poll() is None]


def test_stages_run_side_by_side_and_the_next_one_starts_when_there_is_room() -> None:
    machine = Machine()
    stages = [
        Stage("a-10", 1, 1),
        Stage("b-4", 1, 1),
        Stage("c-2", 1, 1),
        Stage("d-1", 1, 1, after=("a-10",)),
    ]
    results = machine.runner.run(stages, TWO_CORES)
    assert machine.began == {"a-10": 0, "b-4": 0, "c-2": 4, "d-1": 10}
    assert [(result.name, result.seconds) for result in results] == [
        ("b-4", 4),
        ("c-2", 2),
        ("a-10", 10),
        ("d-1", 1),
    ]
    assert results[2].cores == 0.5


def test_a_failed_stage_hides_none_not_even_those_after_it() -> None:
    machine = Machine(a=2)
    results = machine.runner.run([Stage("a-1", 1, 1), Stage("b-1", 1, 1, after=("a-1",))], TWO_CORES)
    assert [(result.name, result.code) for result in results] == [("a-1", 2), ("b-1", 0)]
    assert "FAILED" in "".join(machine.printed)


def test_the_output_of_each_stage_is_printed_whole_when_it_ends() -> None:
    machine = Machine()
    machine.runner.run([Stage("a-3", 1, 1), Stage("b-2", 1, 1)], TWO_CORES)
    outputs = [text for text in machine.printed if "output of" in text]
    assert ["b-2" in outputs[0], "a-3" in outputs[1], len(outputs)] == [True, True, 2]


def test_progress_is_told_at_each_change_and_each_minute() -> None:
    machine = Machine()
    machine.runner.run([Stage("a-150", 2, 1), Stage("b-1", 1, 1)], TWO_CORES)
    told = [text for text in machine.printed if text.startswith("[")]
    assert told[0] == "[0 s] running: a-150 0 s; to come: b-1"
    assert told[1] == f"[{SECONDS_BETWEEN_PROGRESS:.0f} s] running: a-150 60 s; to come: b-1"
    assert told[-1] == "[151 s] running: none"
    assert len(told) == 5


def test_an_interruption_ends_what_runs_and_starts_nothing_more() -> None:
    machine = Machine(interrupted_at=3)
    stages = [Stage("a-9", 1, 1), Stage("b-9", 1, 1), Stage("c-9", 1, 1)]
    with pytest.raises(KeyboardInterrupt):
        machine.runner.run(stages, TWO_CORES)
    assert {name: process.stopped for name, process in machine.processes.items()} == {
        "a-9": ["interrupt", "end"],
        "b-9": ["interrupt", "end"],
    }
