"""A side whose answers an earlier run stored: found by suite and item, read as they were generated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.evaluation import Decoding, Side
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_evaluation.answering.stored import StoredAnswerer
from tunesmith_evaluation.items.items_file import StoredAnswer, StoredItem, open_items_file
from tunesmith_evaluation.items.requests import Problem, Prompt, Reply, Request
from tunesmith_evaluation.metrics.answers import Call

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
OTHER = f"sha256:{'0' * 64}"


class Stored:
    """A claim with an items file."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root)
        self.path = root / "pvc/old/items.jsonl"
        self.digest = ""

    def write(self, *items: StoredItem) -> None:
        with open_items_file(self.path) as writer:
            for item in items:
                writer.write(item)
            self.digest = writer.digest

    def answerer(self, digest: str = "", side: str = "candidate") -> StoredAnswerer:
        source = {"uri": "pvc://old/items.jsonl", "digest": digest or self.digest, "side": side}
        return StoredAnswerer(Side.model_validate({"name": "baseline", "answers": source}), self.storage)

    def ask(self, *requests: Request, **source: str) -> list[Reply]:
        return [reply for batch in self.answerer(**source).answer(requests) for reply in batch]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def item(name: str, *answers: StoredAnswer, suite: str = "task", side: str = "candidate") -> StoredItem:
    return StoredItem(suite=suite, digest=f"sha256:{name}", prompt=name, answers={side: answers})


def request(
    name: str,
    repeat: int = 0,
    suite: str = "task",
    tools: Sequence[Any] = (),
    max_new_tokens: int = 8,
    **more: Any,
) -> Request:
    prompt = Prompt(({"role": "user", "content": name},), "", tuple(tools))
    decoding = Decoding(max_new_tokens=max_new_tokens)
    return Request("baseline", suite, f"sha256:{name}", repeat, prompt, decoding, 1, **more)


def test_answers_are_found_and_read_as_they_were_generated(stored: Stored) -> None:
    thought = StoredAnswer(
        text="<think>hm</think>blue",
        finish_reason="Length",
        prompt_tokens=9,
        tokens=4,
        seconds=0.5,
    )
    called = StoredAnswer(text="", tool_calls=(CALL,))
    stored.write(item("sky", thought), item("rain", called))
    tools = ({"type": "function", "function": {"name": "weather"}},)
    sky, rain = stored.ask(request("sky", max_new_tokens=4), request("rain", tools=tools))
    assert sky.answer is not None
    assert (sky.answer.text, sky.answer.thinking, sky.answer.truncated) == ("blue", "hm", True)
    assert (sky.prompt_tokens, sky.answer.answer_tokens, sky.answer.seconds) == (9, 4, 0.5)
    assert rain.answer is not None
    assert rain.answer.tool_calls == (Call("weather", {"city": "Bern"}),)


def test_each_repeat_has_its_answer(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue"), StoredAnswer(text="grey")))
    first, second, third = stored.ask(request("sky"), request("sky", 1), request("sky", 2))
    assert [reply.answer and reply.answer.text for reply in (first, second, third)] == ["blue", "grey", None]
    assert (third.problem, "holds 2 answers" in third.message) == (Problem.UNANSWERED, True)


def test_what_the_file_lacks_is_counted_and_not_fatal(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")))
    item_missing, suite_missing = stored.ask(request("sea"), request("sky", suite="other"))
    for missing in (item_missing, suite_missing):
        assert (missing.answer, missing.problem) == (None, Problem.UNANSWERED)
    assert "holds 0 answers of side candidate to it" in item_missing.message
    assert "no answers of side candidate to suite other: it has answers to task" in suite_missing.message


def test_what_had_no_answer_then_has_none_now(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="", finish_reason="TooLong")))
    (reply,) = stored.ask(request("sky"))
    assert (reply.answer, reply.problem) == (None, Problem.TOO_LONG)


def test_an_answer_that_a_smaller_limit_cut_off_is_none(stored: Stored) -> None:
    """The suite would have let the model go on, so the other side has a longer limit."""
    cut, whole = (StoredAnswer(text="It is", finish_reason="Length", tokens=tokens) for tokens in (2, 8))
    stored.write(item("sky", cut), item("sea", whole), item("sun", StoredAnswer(text="It is", tokens=2)))
    sky, sea, sun = stored.ask(request("sky"), request("sea"), request("sun"))
    assert (sky.answer, sky.problem) == (None, Problem.UNANSWERED)
    assert "was cut off after 2 tokens, and suite task allows 8: write maxNewTokens: 2" in sky.message
    assert sea.answer and sea.answer.truncated
    assert sun.answer and not sun.answer.truncated


def test_a_byte_order_mark_is_passed_over(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")), item("sea", StoredAnswer(text="grey")))
    stored.path.write_bytes(b"\xef\xbb\xbf" + stored.path.read_bytes().replace(b"\n", b"\r\n"))
    replies = stored.ask(request("sky"), request("sea"), digest=file_digest(stored.path))
    assert [reply.answer and reply.answer.text for reply in replies] == ["blue", "grey"]


def test_probabilities_are_not_stored(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")))
    (reply,) = stored.ask(request("sky", expected="blue", generates=False))
    assert reply.problem is Problem.UNANSWERED


def test_another_file_than_the_pinned_one_is_refused(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")))
    with pytest.raises(UserError, match="write its digest"):
        stored.ask(request("sky"), digest=OTHER)


def test_a_side_that_is_not_in_the_file_is_named_with_those_that_are(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")))
    with pytest.raises(DataError, match="no answer of side old: it has answers of candidate"):
        stored.ask(request("sky"), side="old")


def test_a_missing_file_says_so(stored: Stored) -> None:
    with pytest.raises(UserError, match="does not exist"):
        stored.ask(request("sky"), digest=OTHER)


def test_the_file_is_its_identity(stored: Stored) -> None:
    stored.write(item("sky", StoredAnswer(text="blue")))
    answerer = stored.answerer()
    assert answerer.sides == ("baseline",)
    assert answerer.revision("baseline") == stored.digest
    assert answerer.identity("baseline") == {"answers": stored.digest, "side": "candidate"}
