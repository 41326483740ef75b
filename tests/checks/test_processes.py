"""Stages as real processes."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith_checks import processes
from tunesmith_checks.processes import StageProcess
from tunesmith_checks.schedule import Stage

SLEEPER = (
    "import signal, time; signal.signal(signal.SIGINT, {handler}); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], StageProcess]:
    """Start a recipe as a stage."""

    def run(recipe: str) -> StageProcess:
        (tmp_path / "Makefile").write_text(f"stage:\n\t@{recipe}\n")
        return StageProcess(Stage("stage", 1, 1), tmp_path, tmp_path / "log", dict(os.environ))

    return run


def test_stages_are_of_one_session(start: Callable[[str], StageProcess]) -> None:
    """Linux counts niceness within a session only."""
    stage = start(f"{sys.executable} -c 'import os; print(os.getsid(0), os.getpgid(0) == os.getsid(0))'")
    wait_for(lambda: stage.poll() is not None)
    assert stage.read_output().split() == [str(os.getsid(0)), "False"]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_of_both_kinds_and_processor_time_are_kept(start: Callable[[str], StageProcess]) -> None:
    busy = "import time; any(time.process_time() > 0.3 for _ in iter(int, 1))"
    process = start(f"echo out; echo problem >&2; {sys.executable} -c '{busy}'")
    wait_for(lambda: process.poll() is not None)
    assert process.read_output().split() == ["out", "problem"]
    assert 0.3 < process.cpu_seconds() < 10


def test_a_failed_recipe_fails_the_stage(start: Callable[[str], StageProcess]) -> None:
    process = start("exit 3")
    wait_for(lambda: process.poll() is not None)
    assert process.poll() == 2  # As make says it.


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "signal.SIG_IGN"])
def test_the_end_of_a_stage_is_the_end_of_all_its_children(
    start: Callable[[str], StageProcess], monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 1.0)
    child = f'{sys.executable} -c "{SLEEPER.format(handler=handler)}"'
    process = start(f"{child} & echo $$!; {child}")
    wait_for(lambda: process.read_output().count("ready") == 2)
    pid = int(next(word for word in process.read_output().split() if word.isdigit()))
    assert lives(pid)
    process.interrupt()
    process.end()
    assert not lives(pid)
    assert process.poll() not in (None, 0)


def test_an_ended_stage_needs_no_end(start: Callable[[str], StageProcess]) -> None:
    process = start("true")
    wait_for(lambda: process.poll() is not None)
    process.interrupt()
    process.end()
    assert process.poll() == 0
