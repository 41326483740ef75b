"""Floors of coverage."""

import json
from pathlib import Path

import pytest
from coverage.exceptions import NoDataError

from tunesmith_checks import coverage_floors
from tunesmith_checks.coverage_floors import (
    FLOORS,
    Covered,
    find_fallen,
    find_floor,
    group_by_folder,
    print_folders,
    raise_floors,
)


def test_files_count_for_their_folder_and_for_the_whole() -> None:
    files = {
        "a/src/a/x.py": Covered(1, 4),
        "a/src/a/y.py": Covered(2, 4),
        "a/src/a/deep/z.py": Covered(2, 2),
    }
    assert group_by_folder(files) == {
        ".": Covered(5, 10),
        "a/src/a": Covered(3, 8),
        "a/src/a/deep": Covered(2, 2),
    }


def test_percent_counts_statements_and_branches_alike() -> None:
    assert Covered(3, 4).percent == 75
    assert Covered(0, 0).percent == 100


@pytest.mark.parametrize(
    ("ran", "total", "fallen"),
    [
        (900, 1000, False),
        (890, 1000, False),  # One percent of a large folder may come and go,
        (889, 1000, True),
        (7, 10, False),  # and two of a small one,
        (6, 10, True),
    ],
)
def test_a_folder_falls_when_it_loses_more_than_the_tolerance(ran: int, total: int, fallen: bool) -> None:
    assert (find_fallen({"folder": Covered(ran, total)}, {"folder": 90.0}) == ["folder"]) is fallen


def test_a_new_folder_has_the_floor_of_the_folder_that_it_was_split_from() -> None:
    floors = {".": 80.0, "a/decide": 95.0}
    assert find_floor("a/decide/fit", floors) == 95.0
    assert find_floor("b/new", floors) == 80.0
    assert find_floor("b/new", {}) == 0.0


def test_floors_only_rise_and_forget_folders_that_are_gone() -> None:
    folders = {"up": Covered(957, 1000), "down": Covered(1, 2), "new": Covered(2, 3)}
    floors = {"up": 90.0, "down": 80.0, "gone": 70.0}
    assert raise_floors(folders, floors) == {"up": 95.7, "down": 80.0, "new": 66.6}


def test_a_folder_just_measured_is_not_below_the_floor_it_was_given() -> None:
    folders = {"folder": Covered(2000, 3001)}
    floors = raise_floors(folders, {})
    assert floors["folder"] <= folders["folder"].percent


def test_the_fallen_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_folders({"good": Covered(99, 100), "bad": Covered(50, 100)}, {"good": 90.0, "bad": 90.0})
    marked = [line for line in capsys.readouterr().out.splitlines() if "BELOW" in line]
    assert len(marked) == 1
    assert "bad" in marked[0]


def test_check_fails_below_a_floor_and_raising_mends_nothing_that_fell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    floors = tmp_path / "floors.json"
    monkeypatch.setattr(coverage_floors, "FLOORS", floors)
    monkeypatch.setattr(coverage_floors, "measure", lambda: {"folder": Covered(90, 100)})
    assert coverage_floors.main(["raise"]) == 0
    assert coverage_floors.main(["check"]) == 0
    monkeypatch.setattr(coverage_floors, "measure", lambda: {"folder": Covered(50, 100)})
    assert coverage_floors.main(["check"]) == 1
    assert coverage_floors.main(["raise"]) == 0
    assert coverage_floors.main(["check"]) == 1


def test_a_run_that_measured_nothing_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_nothing() -> dict[str, Covered]:
        raise NoDataError("No data to combine")

    monkeypatch.setattr(coverage_floors, "measure", find_nothing)
    assert coverage_floors.main(["check"]) == 1
    assert "No data to combine. Run `make test`" in capsys.readouterr().out


def test_the_kept_floors_are_percents() -> None:
    floors = json.loads(FLOORS.read_text())
    assert floors
    assert all(0 <= floor <= 100 for floor in floors.values())
