"""Teacher answers: paid for once, whatever happens to the endpoint or the pod."""

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from servers.scripted_server import Received, Reply, serve
from stages.stage_world import World

from tunesmith_data.endpoints.client import KEY_FILE
from tunesmith_data.endpoints.journal import UPLOAD_EVERY, ChatAnswer, Journal
from tunesmith_data.endpoints.journaled_chat import JournaledChat
from tunesmith_data.failures import DataError, InfrastructureError, UserError
from tunesmith_data.prepare import load_prepared
from tunesmith_data.prepare.teacher_answers import CONCURRENCY, JOURNAL_FILE
from tunesmith_data.rows.table.parquet import read_rows


def answer(request: Received) -> Reply:
    """What a good teacher says: the question's words, backwards."""
    words = request.body["messages"][-1]["content"].split()
    return said(" ".join(reversed(words)))


def said(content: str | None, finish: str = "stop") -> Reply:
    """An answer as OpenAI's endpoint gives it."""
    return Reply(body={"choices": [{"message": {"content": content}, "finish_reason": finish}]})


def prompts(count: int) -> list[dict[str, Any]]:
    """Rows of prompts."""
    return [{"prompt": [{"role": "user", "content": f"turn {number} around"}]} for number in range(count)]


def config(world: World, url: str, rows: list[Any], **more: Any) -> Any:
    """A prepare run that asks a teacher."""
    teacher = {"endpoint": {"url": f"{url}/v1", "model": "large", "maxTokens": 64}}
    method = {"distillation": {"teacher": teacher, "maxLength": 128, "maxCompletionLength": 16}}
    return world.prepare_config(world.write_rows("prompts.jsonl", rows), method=method, **more)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are counted, not waited."""
    waits: list[float] = []
    monkeypatch.setattr(JournaledChat.__init__, "__defaults__", (waits.append,))
    return waits


def asked(received: list[Received]) -> Counter[str]:
    """How often each question came."""
    return Counter(request.body["messages"][-1]["content"] for request in received)


def test_answers_become_conversations_that_are_learned(world: World, tmp_path: Path) -> None:
    world.storage.secrets = tmp_path
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / KEY_FILE).write_text("key")
    rows = prompts(30)
    with serve(answer) as server:
        run = config(world, server.url, [*rows, rows[0]])
        report = world.prepare(run)
    assert report.dataset.format == "Chat"
    assert (report.dataset.rows, report.dataset.duplicates) == (31, 1)
    split = load_prepared(world.output / "ns/uid/prepared", report.dataset.digest)
    first = {"role": "assistant", "content": "around 3 turn"}
    assert {"messages": [*rows[3]["prompt"], first]} in [*split.train, *split.validation]
    assert set(asked(server.received).values()) == {1}
    request = server.received[0]
    assert (request.path, request.authorization) == ("/v1/chat/completions", "Bearer key")
    assert {key: request.body[key] for key in ("model", "temperature", "max_tokens")} == {
        "model": "large",
        "temperature": 0.0,
        "max_tokens": 64,
    }
    trained = world.train(world.train_config(report, method=run.method.to_dict()))
    assert trained.training.loss is not None
    assert trained.training.loss > 0


def test_plain_prompts_stay_plain(world: World) -> None:
    with serve(answer) as server:
        report = world.prepare(config(world, server.url, [{"prompt": f"say {n}"} for n in range(9)]))
    assert report.dataset.format == "PromptCompletion"
    assert {"prompt": "say 4", "completion": "4 say"} in read_rows(
        world.output / "ns/uid/prepared/train.parquet"
    )


def test_an_endpoint_that_fails_and_throttles_costs_nothing_twice(
    world: World, impatient: list[float]
) -> None:
    report_rows: Counter[str] = Counter()
    lock = threading.Lock()

    def flaky(request: Received) -> Reply:
        question = request.body["messages"][-1]["content"]
        with lock:
            report_rows[question] += 1
            first = report_rows[question] == 1
        if first:
            return (Reply(429, headers={"Retry-After": "3"}), Reply(0), Reply(500))[len(question) % 3]
        return answer(request)

    with serve(flaky) as server:
        world.prepare(config(world, server.url, prompts(40)))
        assert set(report_rows.values()) == {2}
        assert len(impatient) == 40
        world.prepare(config(world, server.url, prompts(40)))
    assert set(report_rows.values()) == {2}


def test_a_killed_pod_goes_on_where_it_was(world: World) -> None:
    rows, enough = prompts(60), threading.Event()
    hold = threading.Event()

    def slow(request: Received) -> Reply:
        if len(server.received) > 30:
            enough.set()
            hold.wait(60)
        return answer(request)

    with serve(slow) as server:
        run = config(world, server.url, rows)
        pod = world.start(run)
        assert enough.wait(60)
        for child in children(pod.pid):
            child.kill()
        pod.kill()
        pod.communicate(timeout=30)
        hold.set()
        journal = world.output / "ns/uid/prepared" / JOURNAL_FILE
        kept = journal.read_bytes()
        answered = {json.loads(line)["answer"] for line in kept.splitlines()}
        assert 30 - CONCURRENCY <= len(answered) <= 30
        journal.write_bytes(kept + b'{"question": "torn')
        server.received.clear()
        report = world.prepare(run)
        again = asked(server.received)
        assert len(again) == 60 - len(answered)
        assert not answered & {" ".join(reversed(question.split())) for question in again}
        assert report.dataset.train_rows + report.dataset.validation_rows == 60
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len({line["question"] for line in lines}) == len(lines) == 60


def children(pid: int) -> Any:
    """The workers of a pod."""
    import psutil

    return psutil.Process(pid).children(recursive=True)


def test_an_endpoint_that_goes_away_keeps_what_was_answered(world: World) -> None:
    def dying(request: Received) -> Reply:
        return answer(request) if len(server.received) <= 10 else Reply(503)

    with serve(dying) as server:
        with pytest.raises(InfrastructureError, match=r"the teacher at .* cannot be reached"):
            world.prepare(config(world, server.url, prompts(40)))
        # After the first that failed for good, nothing new was begun.
        assert len(asked(server.received)) <= 10 + 2 * CONCURRENCY
    with serve(answer) as server:
        world.prepare(config(world, server.url, prompts(40)))
        # The URL is another one, and so may be the model behind it.
        assert len(server.received) == 40


def test_wrong_prompts_are_said_before_any_answer_is_paid(world: World) -> None:
    with serve(answer) as server:
        with pytest.raises(DataError, match="missing_prompt"):
            world.prepare(config(world, server.url, [*prompts(3), {"prompt": 3}]))
        assert server.received == []


def test_refused_prompts_are_findings_and_cut_answers_are_left_out(world: World) -> None:
    def picky(request: Received) -> Reply:
        question = request.body["messages"][-1]["content"]
        if " 3 " in question:
            return Reply(400, {"error": "filtered"})
        return said("and so on", "length") if " 4 " in question else answer(request)

    with serve(picky) as server:
        with pytest.raises(
            DataError, match=r"prompts.jsonl:4: teacher_refused: prompt: found HTTP 400 .*filtered"
        ):
            world.prepare(config(world, server.url, prompts(20)))
        more = {"onInvalidRow": "Drop", "maxInvalidFraction": 0.2}
        dataset = world.prepare(config(world, server.url, prompts(20), **more)).dataset
    assert dataset.dropped_rows == 2
    assert any("1 answers of the teacher were cut off" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    ("reply", "message"), [(Reply(401, {}), "Secret's file token"), (Reply(body={"answer": 1}), "OpenAI API")]
)
def test_an_endpoint_that_is_none(world: World, reply: Reply, message: str) -> None:
    with serve(lambda _: reply) as server, pytest.raises(UserError, match=message):
        world.prepare(config(world, server.url, prompts(40)))
    assert len(server.received) <= 2 * CONCURRENCY


def test_the_journal_is_kept_from_time_to_time(tmp_path: Path) -> None:
    path, kept = tmp_path / JOURNAL_FILE, []
    with Journal(path, lambda file: kept.append(file.read_bytes().count(b"\n"))) as journal:
        for number in range(2 * UPLOAD_EVERY + 1):
            journal.put(str(number), ChatAnswer("yes", complete=True))
    assert kept == [UPLOAD_EVERY, 2 * UPLOAD_EVERY, 2 * UPLOAD_EVERY + 1]
