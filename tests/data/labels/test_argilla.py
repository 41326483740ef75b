"""Labels through Argilla: its own client against its real server, answered as its web page answers."""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from argilla_server.argilla_process import OWNER_KEY, ArgillaServer, run_argilla
from servers.scripted_server import Reply, serve
from stages.stage_world import World

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.labels import ArgillaSource
from tunesmith_data.__main__ import main as run_command
from tunesmith_data.failures import DataError
from tunesmith_data.labels.argilla_connection import KEY_NAME
from tunesmith_data.labels.training_source import pull_rows
from tunesmith_data.rows.page.report_files import read_report

Row = dict[str, Any]
#: What a person says of a record, by question; None discards it.
Person = Callable[[dict[str, str]], dict[str, Any] | None]

PAIRS: list[Row] = [
    {"prompt": f"{number} + {number}?", "chosen": str(2 * number), "rejected": "-1"} for number in range(6)
]
PLAIN: Row = {"prompt": "Capital of Peru?", "completion": "Lima"}


@pytest.fixture(scope="module")
def argilla(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgillaServer]:
    """A server, for all tests of this file."""
    with run_argilla(tmp_path_factory.mktemp("argilla")) as server:
        yield server


@pytest.fixture(scope="module")
def people(argilla: ArgillaServer) -> dict[str, str]:
    """Keys of people who work on the server, by name."""
    roles = {"anna": "annotator", "ben": "annotator", "carl": "annotator", "ada": "admin"}
    return {name: argilla.add_person(name, role) for name, role in roles.items()}


@pytest.fixture
def labels(
    argilla: ArgillaServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> "Labels":
    """The commands, on a new dataset."""
    monkeypatch.setenv(KEY_NAME, OWNER_KEY)
    return Labels(argilla, tmp_path, f"labels-{uuid.uuid4().hex[:8]}", capsys)


class Labels:
    """The commands on one dataset of a server, and the people who answer there."""

    def __init__(
        self, server: ArgillaServer, folder: Path, dataset: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.server = server
        self.folder = folder
        self.out = folder / "labeled.jsonl"
        self.report = folder / "agreement.json"
        self.dataset = dataset
        self._capsys = capsys
        self._target = ["--argilla-url", server.url, "--dataset", dataset]

    def push(self, rows: Sequence[Row], *options: str) -> int:
        file = self.folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return run_command(["labels", "push", str(file), *self._target, *options])

    def pull(self, *options: str) -> int:
        written = ["--out", str(self.out), "--agreement", str(self.report)]
        return run_command(["labels", "pull", *self._target, *written, *options])

    def pulled(self, *options: str) -> list[Row]:
        """The rows that come out."""
        assert self.pull(*options) == ExitCode.SUCCEEDED
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def agreement(self) -> dict[str, Any]:
        """The report of the last pull."""
        return dict(json.loads(self.report.read_text()))

    def error(self) -> str:
        """What was written to standard error."""
        return self._capsys.readouterr().err

    def records(self) -> list[dict[str, Any]]:
        """The records of the dataset, with answers and suggestions."""
        path = f"/datasets/{self.dataset_id()}/records?include=responses&include=suggestions&limit=1000"
        return list(self.server.call("GET", path)["items"])

    def answer(self, key: str, person: Person) -> None:
        """Let a person answer every record."""
        for record in self.records():
            said = person(record["fields"])
            status = "discarded" if said is None else "submitted"
            values = {name: {"value": value} for name, value in (said or {}).items()}
            path = f"/records/{record['id']}/responses"
            self.server.call("POST", path, key, status=status, values=values)

    def dataset_id(self) -> str:
        datasets = self.server.call("GET", "/me/datasets")["items"]
        identifier: str = next(each["id"] for each in datasets if each["name"] == self.dataset)
        return identifier


def right(fields: dict[str, str]) -> dict[str, Any]:
    """Someone who can add."""
    return {"choice": "B" if fields["answer_a"] == "-1" else "A", "comment": "easy"}


def wrong(fields: dict[str, str]) -> dict[str, Any]:
    """Someone who can't."""
    return {"choice": "A" if fields["answer_a"] == "-1" else "B"}


def test_preferences_of_several_people_come_back_in_trls_form(labels: Labels, people: dict[str, str]) -> None:
    assert labels.push(PAIRS, "--task", "preference", "--min-submitted", "3") == ExitCode.SUCCEEDED
    assert labels.pulled() == []
    for name, person in (("anna", right), ("ben", right), ("carl", wrong)):
        labels.answer(people[name], person)
    assert labels.pulled("--min-annotators", "3") == PAIRS
    report = labels.agreement()
    shares = {each["name"]: each["withMajority"] for each in report["annotators"]}
    assert shares == {"anna": 1.0, "ben": 1.0, "carl": 0.0}
    assert report["sharedItems"] == len(PAIRS)
    assert report["disputed"][0]["comments"] == ["easy", "easy"]
    everyone = labels.pulled("--aggregate", "all")
    assert sorted(row["chosen"] for row in everyone).count("-1") == len(PAIRS)
    assert len(everyone) == 3 * len(PAIRS)


def test_pushing_again_keeps_answers_and_adds_what_is_new(labels: Labels, people: dict[str, str]) -> None:
    assert labels.push(PAIRS[:3], "--task", "preference") == ExitCode.SUCCEEDED
    labels.answer(people["anna"], right)
    before = {record["external_id"]: record["id"] for record in labels.records()}
    assert labels.push(PAIRS, "--task", "preference") == ExitCode.SUCCEEDED
    after = {record["external_id"]: record["id"] for record in labels.records()}
    assert after.items() >= before.items()
    assert len(after) == len(PAIRS)
    assert labels.pulled() == PAIRS[:3]


def test_what_people_discard_is_skipped_and_drafts_are_nothing(
    labels: Labels, people: dict[str, str]
) -> None:
    labels.push(PAIRS[:2], "--task", "preference")
    labels.answer(people["anna"], lambda _: None)
    for record in labels.records():
        draft = {"status": "draft", "values": {"choice": {"value": "A"}}}
        labels.server.call("POST", f"/records/{record['id']}/responses", people["ben"], **draft)
    assert labels.pulled() == []
    assert labels.agreement()["skipped"] == 2
    assert [each["name"] for each in labels.agreement()["annotators"]] == ["anna"]


@pytest.mark.parametrize(
    ("task", "row", "said", "expected"),
    [
        (["approve"], PLAIN, {"choice": "yes"}, PLAIN),
        (["approve", "--suggest"], {**PLAIN, "label": False}, {"choice": "yes"}, PLAIN),
        (["rating", "--scale", "10"], PLAIN, {"choice": 10}, PLAIN),
        (
            ["classification", "--labels", "geo,maths"],
            PLAIN,
            {"choice": "geo"},
            {**PLAIN, "completion": "geo"},
        ),
        (["correction"], PLAIN, {"correction": "=Lima."}, {**PLAIN, "completion": "=Lima."}),
    ],
)
def test_each_task_has_its_question(
    labels: Labels, people: dict[str, str], task: list[str], row: Row, said: dict[str, Any], expected: Row
) -> None:
    assert labels.push([row], "--task", *task) == ExitCode.SUCCEEDED
    labels.answer(people["anna"], lambda _: said)
    assert labels.pulled() == [expected]


def test_a_correction_begins_with_the_answer_that_is_there(labels: Labels) -> None:
    labels.push([PLAIN], "--task", "correction")
    ((suggestion,),) = [record["suggestions"] for record in labels.records()]
    assert suggestion["value"] == "Lima"


def test_long_conversations_with_tools_come_back_whole(labels: Labels, people: dict[str, str]) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"key": 1}}}
    messages = [
        {"role": "user", "content": "ä" * 50_000},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "one"},
    ]
    row = {"messages": messages, "tools": tools}
    labels.push([row], "--task", "approve")
    labels.answer(people["anna"], lambda _: {"choice": "yes"})
    assert labels.pulled() == [row]


def test_an_admin_of_the_workspace_is_enough(
    labels: Labels, people: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / KEY_NAME).write_text(people["ada"] + "\n")
    monkeypatch.delenv(KEY_NAME)
    assert labels.push([PLAIN], "--task", "approve", "--key-file", str(secret)) == ExitCode.SUCCEEDED
    labels.answer(people["anna"], lambda _: {"choice": "yes"})
    assert labels.pulled("--key-file", str(secret / KEY_NAME)) == [PLAIN]
    assert [each["name"] for each in labels.agreement()["annotators"]] == ["anna"]


def test_who_may_not_is_told_so(
    labels: Labels, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, people["anna"])
    assert labels.push([PLAIN], "--task", "approve") == ExitCode.USER_ERROR
    error = labels.error()
    assert "LabelsForbidden: " in error
    assert people["anna"] not in error


def test_a_wrong_key_is_refused(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_NAME, "not-the-key-of-anyone")
    assert labels.pull() == ExitCode.USER_ERROR
    error = labels.error()
    assert "LabelsKeyRefused: " in error
    assert "not-the-key" not in error


def test_a_missing_dataset_or_workspace_is_named(labels: Labels) -> None:
    assert labels.pull() == ExitCode.USER_ERROR
    assert "DatasetNotFound: there is no dataset labels-" in labels.error()
    assert labels.pull("--workspace", "elsewhere") == ExitCode.USER_ERROR
    assert "WorkspaceNotFound: the Argilla server has no workspace elsewhere" in labels.error()


def test_a_dataset_that_asks_something_else_is_kept(labels: Labels) -> None:
    labels.push([PLAIN], "--task", "rating")
    assert labels.push([PLAIN], "--task", "approve") == ExitCode.USER_ERROR
    assert "LabelsDontFit: dataset labels-" in labels.error()
    assert labels.push([PLAIN], "--task", "rating", "--scale", "4") == ExitCode.USER_ERROR
    assert len(labels.records()) == 1


def test_foreign_records_are_not_taken_for_ours(labels: Labels) -> None:
    labels.push([PLAIN], "--task", "approve")
    path = f"/datasets/{labels.dataset_id()}/records/bulk"
    labels.server.call(
        "POST", path, items=[{"external_id": "theirs", "fields": {"prompt": "x", "answer": "y"}}]
    )
    assert labels.pull() == ExitCode.DATA_ERROR
    assert "ForeignRecords: dataset labels-" in labels.error()


def test_a_job_learns_from_what_people_labeled(labels: Labels, people: dict[str, str], world: World) -> None:
    source = {"url": labels.server.url, "dataset": labels.dataset, "minAnnotators": 2}
    config = world.prepare_config(
        [], argilla=source, method={"dpo": {"maxLength": 128}}, validation={"fraction": 0.0}
    )
    labels.push(PAIRS, "--task", "preference")
    with pytest.raises(DataError, match=r"gives no rows \(6 tooFewAnnotators\)") as error:
        world.prepare(config)
    assert error.value.reason == "NoLabels"
    for name in ("anna", "ben"):
        labels.answer(people[name], right)
    assert world.prepare(config).dataset.train_rows == len(PAIRS)
    (agreement,) = world.root.rglob("agreement.json")
    assert json.loads(agreement.read_text())["rows"] == len(PAIRS)
    report = read_report(agreement.parent)
    assert report.agreement and report.agreement.shared_items == len(PAIRS)
    assert {each.name for each in report.agreement.annotators} == {"anna", "ben"}
    # What people say later is for the next job.
    (rows,) = world.root.rglob("labels.jsonl")
    for name in ("carl", "ada"):
        labels.answer(people[name], wrong)
    assert labels.pulled() == []
    labeled = ArgillaSource.model_validate(source)
    assert pull_rows(labeled, world.root / "no-secret", rows.parent, agreement.parent, 0) == rows
    assert [json.loads(line) for line in rows.read_text().splitlines()] == PAIRS


def test_a_job_says_that_people_do_not_agree(labels: Labels, people: dict[str, str], world: World) -> None:
    source = {"url": labels.server.url, "dataset": labels.dataset}
    config = world.prepare_config(
        [], argilla=source, method={"dpo": {"maxLength": 128}}, validation={"fraction": 0.0}
    )
    labels.push(PAIRS, "--task", "preference")
    for name in ("anna", "ben"):
        labels.answer(people[name], right)
    labels.answer(people["carl"], lambda fields: wrong(fields) | {"comment": "says anna.bolt@example.org"})
    dataset = world.prepare(config).dataset
    assert ("low_agreement", len(PAIRS)) in dataset.issues
    report = read_report(world.output / "ns/uid/data-report")
    assert report.agreement
    carl = next(each for each in report.agreement.annotators if each.name == "carl")
    assert (carl.answers, carl.with_majority) == (len(PAIRS), 0)
    assert len(report.agreement.disputed) == report.agreement.disputed_items == len(PAIRS)
    # Reports are passed around.
    for name in ("agreement.json", "report.json", "report.html"):
        text = (world.output / "ns/uid/data-report" / name).read_text()
        assert "anna.bolt" not in text and "EMAIL" in text


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (Reply(body={"version": "1.29.1"}), ExitCode.USER_ERROR, "WrongArgillaVersion"),
        (Reply(404, {"detail": "Not Found"}), ExitCode.USER_ERROR, "NotArgilla"),
        (Reply(200, b"<html>"), ExitCode.USER_ERROR, "NotArgilla"),
        (Reply(503, b"busy"), ExitCode.INFRASTRUCTURE, "LabelsUnavailable"),
        (Reply(0), ExitCode.INFRASTRUCTURE, "LabelsUnavailable"),
    ],
)
def test_another_server_is_told_from_argilla(
    reply: Reply,
    code: ExitCode,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(KEY_NAME, "a-key")
    with serve(lambda _: reply) as server:
        found = run_command(["labels", "agreement", "--argilla-url", server.url, "--dataset", "d"])
    assert (found, capsys.readouterr().err.split(":")[0]) == (code, reason)
    assert all(request.authorization is None for request in server.received)


def test_a_server_that_is_away_may_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_NAME, "a-key")
    command = ["labels", "agreement", "--argilla-url", "http://127.0.0.1:9", "--dataset", "d"]
    assert run_command(command) == ExitCode.INFRASTRUCTURE
    assert "LabelsUnavailable: http://127.0.0.1:9 can't be reached (ConnectError" in capsys.readouterr().err
