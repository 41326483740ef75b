"""Replies of answerers: each request once, in the journal before it counts, uploaded every minute."""

from collections.abc import Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith_contract.evaluation import Decoding
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.share import Share
from tunesmith_evaluation.items.requests import Problem, Prompt, Reply, Request
from tunesmith_evaluation.metrics.answers import Answer, Call, Likelihood
from tunesmith_evaluation.stage import journal as journal_module
from tunesmith_evaluation.stage.collecting import collect_replies
from tunesmith_evaluation.stage.journal import AnswerJournal
from tunesmith_evaluation.stage.replies import ReplyKey
from tunesmith_evaluation.stage.shares import Shares


class FakeAnswerer:
    """Answerer that gives each prompt back, in batches of two; prompts "no" get no answer."""

    def __init__(self, *sides: str, model: str = "m") -> None:
        self.sides = sides
        self._model = model
        self.asked: list[str] = []

    def revision(self, side: str) -> str:
        return self._model

    def identity(self, side: str) -> str:
        return self._model

    def answer(self, requests: Sequence[Request]) -> Generator[Sequence[Reply]]:
        for start in range(0, len(requests), 2):
            batch = requests[start : start + 2]
            self.asked += [request.prompt.text for request in batch]
            yield [
                Reply(request, None, Problem.UNANSWERED, "away")
                if request.prompt.text == "no"
                else Reply(request, Answer(request.prompt.text, request.prompt.text), prompt_tokens=3)
                for request in batch
            ]


def request(side: str, text: str, repeat: int = 0) -> Request:
    return Request(side, "s", f"item {text}", repeat, Prompt(text=text), Decoding(), 1)


def collect(
    requests: Sequence[Request], answerers: Sequence[FakeAnswerer], folder: Path, times: Sequence[float] = ()
) -> int:
    """Number of uploads; time passes as given."""
    saves: list[Path] = []
    clock = iter(times)
    workspace: Any = SimpleNamespace(own_answers=folder / "0", share=Share(), push=saves.append)
    shares = Shares([], workspace, ProgressReporter({}))
    replies = collect_replies(requests, answerers, workspace, shares, lambda: next(clock, 0.0))
    assert replies is not None
    assert set(replies) == {ReplyKey(one.side, "s", one.item) for one in requests}
    return len(saves)


def test_a_request_without_an_answer_is_asked_again_and_others_are_not(tmp_path: Path) -> None:
    first = FakeAnswerer("a", "b")
    requests = [
        request("a", "1"),
        request("a", "no"),
        request("b", "1"),
        request("a", "2", 1),
        request("a", "2"),
    ]
    collect(requests, [first], tmp_path)
    assert sorted(first.asked) == ["1", "1", "2", "2", "no"]
    again = FakeAnswerer("a", "b")
    collect(requests, [again], tmp_path)
    assert again.asked == ["no"]
    other = FakeAnswerer("a", "b", model="other")
    collect(requests, [other], tmp_path)
    assert len(other.asked) == 5


def test_answers_are_uploaded_every_minute(tmp_path: Path) -> None:
    requests = [request("a", str(number)) for number in range(8)]
    # Begin; each of four batches asks the time once, or twice where it uploads.
    assert collect(requests, [FakeAnswerer("a")], tmp_path, [0, 30, 61, 61, 100, 122, 122]) == 3


def test_all_of_an_answer_comes_back(tmp_path: Path) -> None:
    answer = Answer(
        "text",
        "<think>x</think>text\u2028",
        "x",
        tool_calls=(Call("f", {"a": [1, None]}),),
        truncated=True,
        answer_tokens=3,
        seconds=0.5,
        likelihood=Likelihood(float("-inf"), 2),
    )
    answerer, one = FakeAnswerer("a"), request("a", "1")
    AnswerJournal(tmp_path / "0").add([Reply(one, answer, prompt_tokens=7)], answerer)
    (file,) = tmp_path.glob("0/*.jsonl")
    with file.open("ab") as stream:
        stream.write(b'["three", "\xc3')
    found = AnswerJournal(tmp_path / "0").find(one, answerer)
    assert found == Reply(one, answer, prompt_tokens=7)


def test_files_of_the_journal_stay_small_and_pods_read_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_LINES_PER_FILE", 2)
    answerer = FakeAnswerer("a")
    for pod in ("0", "1"):
        journal = AnswerJournal(tmp_path / pod)
        for number in range(5):
            text = f"{pod} {number}"
            journal.add([Reply(request("a", text), Answer(text))], answerer)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jsonl")) == [
        f"{pod}/answers-{file:05}.jsonl" for pod in (0, 1) for file in (0, 1, 2)
    ]
    assert AnswerJournal(tmp_path / "0").find(request("a", "1 4"), answerer)
