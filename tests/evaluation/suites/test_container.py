"""Exchange with a container that scores answers: the example as a process, and what containers may leave."""

import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest

from tunesmith_contract.evaluation_container import (
    EXIT_UNSUPPORTED,
    MAX_LINE_BYTES,
    ContainerAnswer,
    ContainerConfig,
    ContainerItem,
    ContainerScore,
)
from tunesmith_evaluation.suites import container_files
from tunesmith_evaluation.suites.container import (
    Clock,
    ContainerBeside,
    LocalProcess,
    make_folders,
    score_with_container,
)
from tunesmith_evaluation.suites.container_files import ContainerScores, read_scores, write_input

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/evaluation-container/score.py"
SCHEMAS = ROOT / "docs/schemas/evaluation-container/v1"
SIDES = ("candidate", "baseline")
DIGESTS = tuple(f"sha256:{number:064x}" for number in range(3))


def make_item(digest: str, **answers: str) -> ContainerItem:
    by_side = {side: (ContainerAnswer(text=text),) for side, text in answers.items()}
    return ContainerItem(
        digest=digest, line=1, prompt="Which fruits?", expected="apple pear", answers=by_side
    )


ITEMS = [make_item(digest, candidate="apple pear", baseline="a pear") for digest in DIGESTS]


def make_config(**settings: int) -> ContainerConfig:
    values = {"timeout_seconds": 30, **settings}
    return ContainerConfig(suite="fruits", sides=SIDES, items=len(ITEMS), repeats=1, **values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folders(tmp_path / "exchange")
    return tmp_path / "exchange"


class FakeTime:
    """Time that passes by waiting alone; ``script`` is what the container does in each second."""

    def __init__(self, *script: object) -> None:
        self.seconds = 0.0
        self.script = list(script)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        if self.script:
            step = self.script.pop(0)
            if callable(step):
                step()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.wait)


def leave(folder: Path, *lines: object) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "output/scores.jsonl").write_text(text)


def read(folder: Path) -> ContainerScores:
    return read_scores(folder, SIDES, ITEMS)


def all_scores(**replaced: object) -> list[dict[str, object]]:
    return [
        {"digest": digest, "side": side, "score": 0.5, **replaced} for digest in DIGESTS for side in SIDES
    ]


def test_example_container_scores_answers(folder: Path) -> None:
    seen: list[int] = []
    with LocalProcess.started([sys.executable, str(EXAMPLE)], folder) as program:
        result = score_with_container(folder, make_config(), ITEMS, program, seen.append)
    assert result.describe() == ""
    assert {key: score.score for key, score in result.scores.items()} == {
        (digest, side): value for digest in DIGESTS for side, value in (("candidate", 1.0), ("baseline", 0.5))
    }


def test_files_follow_the_published_schemas(folder: Path) -> None:
    with LocalProcess.started([sys.executable, str(EXAMPLE)], folder) as program:
        score_with_container(folder, make_config(), ITEMS, program)
    files = {
        "config": "input/config.json",
        "item": "input/items.jsonl",
        "score": "output/scores.jsonl",
        "progress": "output/progress.json",
    }
    for name, file in files.items():
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        lines = (folder / file).read_text().splitlines()
        assert lines
        for line in lines:
            jsonschema.validate(json.loads(line), schema)


def test_example_refuses_another_version(folder: Path) -> None:
    write_input(folder, make_config(), ITEMS)
    config = json.loads((folder / "input/config.json").read_text()) | {"version": 2}
    (folder / "input/config.json").write_text(json.dumps(config))
    with LocalProcess.started([sys.executable, str(EXAMPLE)], folder) as program:
        program._process.wait(timeout=20)
        assert program.exit_code() == EXIT_UNSUPPORTED


def test_example_that_is_started_again_writes_nothing(folder: Path) -> None:
    write_input(folder, make_config(), ITEMS)
    (folder / "output/done").touch()
    with LocalProcess.started([sys.executable, str(EXAMPLE)], folder) as program:
        program._process.wait(timeout=20)
        assert program.exit_code() == 0
    assert not (folder / "output/scores.jsonl").exists()


def test_program_sees_no_variables_of_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hidden")
    script = "import json, os, sys; json.dump(dict(os.environ), open('output/failure.json', 'w'))"
    with LocalProcess.started([sys.executable, "-c", script], folder) as program:
        program._process.wait(timeout=20)
    assert "SECRET_KEY" not in json.loads((folder / "output/failure.json").read_text())


def test_program_that_ends_early_leaves_items_without_scores(folder: Path) -> None:
    with LocalProcess.started([sys.executable, "-c", "raise SystemExit(3)"], folder) as program:
        result = score_with_container(folder, make_config(), ITEMS, program)
    assert result.problem == "the container ended with exit code 3 without writing done"
    assert result.missing == len(result.scores) == 6
    assert {score.score for score in result.scores.values()} == {None}


def test_container_that_gives_up_is_quoted(folder: Path) -> None:
    time = FakeTime(lambda: (folder / "output/failure.json").write_text('{"message": "no judge"}'))
    result = score_with_container(folder, make_config(), ITEMS, ContainerBeside(), clock=time.clock)
    assert result.problem == "the container gave up: no judge"


def test_time_limit(folder: Path) -> None:
    time = FakeTime()
    config = make_config(timeout_seconds=9, heartbeat_seconds=100)
    result = score_with_container(folder, config, ITEMS, ContainerBeside(), clock=time.clock)
    assert result.problem == "the container did not finish within 9 seconds"


def test_signs_of_life_are_reported_and_their_absence_ends_the_wait(folder: Path) -> None:
    progress = folder / "output/progress.json"
    seen: list[int] = []
    time = FakeTime(None, None, lambda: progress.write_text('{"done": 2, "total": 6}'))
    config = make_config(timeout_seconds=1000, heartbeat_seconds=5)
    result = score_with_container(folder, config, ITEMS, ContainerBeside(), seen.append, time.clock)
    assert seen == [2]
    assert result.problem == "the container has not written progress.json for 5 seconds"
    assert time.seconds == 9


def test_scores_of_an_unfinished_container_are_kept(folder: Path) -> None:
    time = FakeTime(lambda: leave(folder, *all_scores()[:2]))
    config = make_config(timeout_seconds=3)
    result = score_with_container(folder, config, ITEMS, ContainerBeside(), clock=time.clock)
    assert [score.score for score in result.scores.values()].count(0.5) == 2
    assert result.missing == 4


def test_output_before_input_is_refused(folder: Path) -> None:
    leave(folder, *all_scores())
    (folder / "output/done").touch()
    result = score_with_container(folder, make_config(), ITEMS, ContainerBeside())
    assert result.problem == "the container wrote output before it had any input"
    assert not (folder / "input/ready").exists()


def test_whole_scores(folder: Path) -> None:
    leave(folder, *all_scores(detail={"words": 3}))
    result = read(folder)
    assert result.describe() == ""
    assert {score.score for score in result.scores.values()} == {0.5}
    assert result.scores[DIGESTS[0], "baseline"].detail == {"words": 3}


def test_reason_without_a_score_is_kept(folder: Path) -> None:
    leave(folder, *all_scores(score=None, reason="the judge was not sure"))
    assert {score.reason for score in read(folder).scores.values()} == {"the judge was not sure"}


@pytest.mark.parametrize(
    "line",
    [
        {"score": 1.01},
        {"score": -0.0001},
        {"score": float("nan")},
        {"score": float("inf")},
        {"score": True},
        {"score": "0.5"},
        {"score": [0.5]},
        {"detail": {"value": float("nan")}},
        {"reason": "\ud800"},
        {"detail": {"text": "\ud800"}},
        {"reason": "x" * MAX_LINE_BYTES},
        {"digest": None},
    ],
    ids=lambda line: next(iter(line)),
)
def test_invalid_line_is_counted_and_its_item_has_no_score(folder: Path, line: dict[str, object]) -> None:
    first, *rest = all_scores()
    leave(folder, first | line, *rest)
    result = read(folder)
    assert (result.invalid, result.missing) == (1, 1)
    assert result.scores[DIGESTS[0], "candidate"].score is None
    assert result.describe() == "1 scores without a line, 1 invalid lines"


@pytest.mark.parametrize("line", ["", "no JSON", "[]", "null", '{"digest":', "[" * 60_000, "\x00"])
def test_lines_that_are_no_object(folder: Path, line: str) -> None:
    leave(folder, line, *all_scores())
    result = read(folder)
    assert result.invalid == (1 if line else 0)
    assert result.missing == 0


def test_missing_score_key_is_no_score(folder: Path) -> None:
    leave(folder, *({"digest": digest, "side": side} for digest in DIGESTS for side in SIDES))
    assert read(folder).invalid == 6


def test_duplicates_have_no_score(folder: Path) -> None:
    first, *rest = all_scores()
    leave(folder, first, first | {"score": 1.0}, first, *rest)
    result = read(folder)
    assert result.duplicates == 1
    assert result.scores[DIGESTS[0], "candidate"].score is None


def test_unknown_items_and_sides_are_counted(folder: Path) -> None:
    first = all_scores()[0]
    leave(folder, *all_scores(), first | {"digest": f"sha256:{9:064x}"}, first | {"side": "other"})
    result = read(folder)
    assert (result.unknown, len(result.scores)) == (2, 6)


def test_side_without_an_answer_needs_no_score(folder: Path) -> None:
    items = [make_item(DIGESTS[0], candidate="apple")]
    leave(folder, all_scores()[0])
    result = read_scores(folder, SIDES, items)
    assert result.describe() == ""
    assert list(result.scores) == [(DIGESTS[0], "candidate")]


def test_large_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_files, "MAX_OUTPUT_BYTES", 100)
    leave(folder, *all_scores())
    result = read(folder)
    assert result.missing == 6
    assert "more than 100" in result.problem


def test_link_to_a_file_of_this_container_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n".join(json.dumps(line) for line in all_scores()))
    (folder / "output/scores.jsonl").symlink_to(tmp_path / "secret")
    result = read(folder)
    assert result.missing == 6
    assert result.problem.startswith("scores.jsonl can't be read")


def test_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "output/scores.jsonl")
    os.mkfifo(folder / "output/done")
    assert read(folder).problem == "scores.jsonl can't be read: it is no regular file"
    assert not container_files.holds(folder, "done")


def test_output_folder_that_is_a_link_is_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "output").rmdir()
    (folder / "output").symlink_to(tmp_path)
    (tmp_path / "scores.jsonl").write_text(
        ContainerScore(digest=DIGESTS[0], side="candidate", score=1).to_json()
    )
    assert read(folder).missing == 6
