"""Items file: written, read back, looked up by side, and refused where it is wrong."""

from pathlib import Path

import pytest

from tunesmith_contract.base import sha256_digest
from tunesmith_data.failures import DataError
from tunesmith_evaluation.items.items_file import (
    StoredAnswer,
    StoredAnswers,
    StoredItem,
    open_items_file,
    read_items_file,
)


def make_item(line: int, *sides: str) -> StoredItem:
    answer = StoredAnswer(
        text=f"<think>no</think>{line}\u2028\n", finish_reason="Stop", tokens=3, seconds=0.5
    )
    return StoredItem(
        suite="tickets",
        line=line,
        digest=f"sha256:{line}",
        messages=({"role": "user", "content": f"question {line}"},),
        expected=str(line),
        answers={side: (answer, answer.model_copy(update={"text": "again"})) for side in sides},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "items.jsonl"
    with open_items_file(path) as writer:
        for line in (1, 2, 3):
            writer.write(make_item(line, "candidate", *(["baseline"] if line != 2 else [])))
    return path


def test_a_file_is_read_back_equal_one_line_per_item(path: Path) -> None:
    assert [item.line for item in read_items_file(path)] == [1, 2, 3]
    assert next(read_items_file(path)) == make_item(1, "candidate", "baseline")
    assert path.read_bytes().count(b"\n") == 3


def test_the_writer_knows_digest_and_size(tmp_path: Path) -> None:
    with open_items_file(tmp_path / "i") as writer:
        writer.write(make_item(1, "a"))
    data = (tmp_path / "i").read_bytes()
    assert (writer.digest, writer.size_bytes) == (sha256_digest(data), len(data))


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_items_file(tmp_path / "items.jsonl") as writer:
            writer.write(make_item(1, "a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_answers_of_a_side_are_found_in_any_order(path: Path) -> None:
    answers = StoredAnswers(path, "baseline")
    assert len(answers) == 2
    assert [answers.find("tickets", f"sha256:{line}")[:1] for line in (3, 2, 1)] == [
        make_item(3, "baseline").answers["baseline"][:1],
        (),
        make_item(1, "baseline").answers["baseline"][:1],
    ]
    assert [answer.text for answer in answers.find("tickets", "sha256:1")][1] == "again"
    assert answers.find("other", "sha256:1") == ()


def test_files_of_several_pods_are_joined_end_to_end(path: Path, tmp_path: Path) -> None:
    with open_items_file(tmp_path / "second") as writer:
        writer.write(make_item(9, "candidate"))
    joined = tmp_path / "joined"
    joined.write_bytes(path.read_bytes() + b"\n" + (tmp_path / "second").read_bytes())
    assert StoredAnswers(joined, "candidate").find("tickets", "sha256:9")[0].text.endswith("9\u2028\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "items:2: the line: Invalid JSON.*docs/reports.md"),
        (b'{"version": 2, "suite": "a", "digest": "b"}', "items:2: version: "),
        (b'{"version": 1, "digest": "b"}', "items:2: suite: Field required"),
        (
            b'{"suite": "a", "digest": "b", "answers": {"x": [{"tokens": 1}]}}',
            r"items:2: answers\.x\.0\.text",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "items"
    path.write_bytes(make_item(1, "x").to_json().encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=message):
        list(read_items_file(path))
    with pytest.raises(DataError, match=message):
        StoredAnswers(path, "x")


def test_an_item_answered_twice_or_by_nobody_is_refused(path: Path) -> None:
    with pytest.raises(
        DataError, match="holds no answer of side tuned: it has answers of baseline, candidate"
    ):
        StoredAnswers(path, "tuned")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(
        DataError, match=r"items\.jsonl:4: a second line answers the item sha256:1 of tickets"
    ):
        StoredAnswers(path, "candidate")
