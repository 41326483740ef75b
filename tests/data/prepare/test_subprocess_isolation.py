"""Calls in a separate process: results, errors, and the end of the process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from stages import isolated_counter
from stages.stage_world import RowBuilders, World

from tunesmith_data.prepare import load_prepared
from tunesmith_data.prepare.subprocess_isolation import hold_isolated

PROGRAM = Path(isolated_counter.__file__)


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def report_rows() -> list[Any]:
    """What the program saw of an object that it held apart."""
    with start() as program:
        assert program.stdout
        lines = [json.loads(line) for line in program.stdout]
    assert program.returncode == 0
    return lines


def test_an_object_lives_in_one_other_process(report_rows: list[Any]) -> None:
    assert report_rows[0]["pid"] != report_rows[0]["here"] == report_rows[0]["parent"]
    assert report_rows[0]["sums"] == [2, 4, 7]


def test_torch_is_hidden_there_but_not_from_a_call(report_rows: list[Any]) -> None:
    assert (report_rows[0]["torch"], report_rows[0]["loaded"]) == (False, True)


def test_an_error_comes_over_as_it_is(report_rows: list[Any]) -> None:
    assert report_rows[0]["errors"] == [["DataError", "WrongRow", "row 3 is wrong"]]


def test_a_killed_process_is_a_failure_that_may_be_tried_again(report_rows: list[Any]) -> None:
    assert report_rows[1][:2] == ["Infrastructure", "WorkerDied"]


def test_it_ends_with_a_parent_that_was_killed() -> None:
    with start("wait") as program:
        assert program.stdout
        held = psutil.Process(json.loads(program.stdout.readline())["pid"])
        program.kill()
    assert psutil.wait_procs([held], timeout=30)[1] == []


def test_where_torch_is_loaded_it_stays_here() -> None:
    with hold_isolated(isolated_counter.Tally, 1) as tally:
        assert tally.submit(isolated_counter.Tally.look).result()["pid"] == os.getpid()


def test_rows_are_counted_apart_as_they_are_here(world: World, make: RowBuilders) -> None:
    """The whole stage as a pod runs it, where no torch is loaded, and in this process, where it is."""
    long_question = make.row("word " * 300, "a")
    uri = world.write_rows("train.jsonl", [*make.rows(150), long_question])
    here, there = (
        world.prepare_config(uri, uid=uid, onInvalidRow="Drop", maxInvalidFraction=0.1) for uid in "ab"
    )
    here_report = world.prepare(here)
    dataset = here_report.dataset
    program = world.start(there)
    said = program.communicate()[0]
    assert program.returncode == 0, said
    assert "PyTorch was not found" not in said
    report = json.loads((world.output / "ns/b/prepared/report.json").read_text())
    assert report["dataset"]["digest"] == dataset.digest
    assert report["model"] == here_report.model.to_dict()
    assert report["dataset"]["tokens"]["total"] == dataset.tokens.total
    assert report["dataset"]["droppedRows"] == dataset.dropped_rows == 1
    assert len(load_prepared(world.output / "ns/b/prepared", dataset.digest).train) == dataset.train_rows
