"""A side behind an endpoint: what is sent, how answers are read, what is paid for, and what fails one item alone."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers.scripted_server import Received, Reply, ScriptedServer, serve
from servers.scripted_teacher import said

from tunesmith_contract.base import canonical_json
from tunesmith_contract.evaluation import Decoding, Side
from tunesmith_contract.generation import CallBudget
from tunesmith_data.endpoints.client import ATTEMPTS, KEY_FILE
from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_evaluation.answering.endpoint import EndpointAnswerer
from tunesmith_evaluation.items.requests import Problem, Prompt, Request
from tunesmith_evaluation.items.requests import Reply as Answered
from tunesmith_evaluation.metrics.answers import Call

KEY = "sesame-open-1234"
TOOLS = ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)
Script = Callable[[Received], Reply]


def request(text: str = "What is new?", prompt: Prompt | None = None, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "side": "candidate",
        "suite": "task",
        "item": f"sha256:{text}",
        "repeat": 0,
        "prompt": prompt or Prompt(({"role": "user", "content": text},)),
        "decoding": Decoding(max_new_tokens=32),
        "seed": 2**62 + 5,
    }
    return Request(**values | changes)


class Setting:
    """An endpoint with a script, and answerers of it one after the other, as pods are."""

    def __init__(self, server: ScriptedServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.journal = folder / "journal.jsonl"
        self.waits: list[float] = []
        self.uploads: list[Path] = []
        (folder / KEY_FILE).write_text(f"{KEY}\n")

    def answerer(self, concurrency: int = 1, url: str = "", **more: Any) -> EndpointAnswerer:
        endpoint = {"url": url or f"{self.server.url}/v1", "model": "big"}
        side = Side.model_validate({"name": "candidate", "endpoint": endpoint})
        sleep = more.pop("sleep", self.waits.append)
        return EndpointAnswerer(
            side, self.folder, self.journal, self.uploads.append, concurrency, sleep=sleep, **more
        )

    def ask(self, requests: Sequence[Request], concurrency: int = 1) -> list[Answered]:
        with closing(self.answerer(concurrency).answer(requests)) as batches:
            return [reply for batch in batches for reply in batch]


@contextmanager
def setting(folder: Path, script: Script) -> Iterator[Setting]:
    with serve(script) as server:
        yield Setting(server, folder)


def one(reply: Answered) -> Any:
    assert reply.answer is not None, reply.message
    return reply.answer


def test_every_decoding_parameter_is_sent(tmp_path: Path) -> None:
    decoding = Decoding(max_new_tokens=7, temperature=0.7, top_p=0.9, stop=("END",))
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    prompt = Prompt(messages, "", TOOLS, {"enable_thinking": False})
    with setting(tmp_path, lambda _: said("Hello")) as here:
        here.ask([request(prompt=prompt, decoding=decoding)])
        (received,) = here.server.received
    assert received.path == "/v1/chat/completions"
    assert received.authorization == f"Bearer {KEY}"
    assert received.body == {
        "model": "big",
        "messages": list(messages),
        "tools": list(TOOLS),
        "chat_template_kwargs": {"enable_thinking": False},
        "max_tokens": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 5,
        "frequency_penalty": 0,
        "presence_penalty": 0,
    }


def test_plain_text_is_continued_as_it_is(tmp_path: Path) -> None:
    body = {
        "choices": [{"text": " blue", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1},
    }
    with setting(tmp_path, lambda _: Reply(body=body)) as here:
        (reply,) = here.ask([request(prompt=Prompt(text="The sky is"))])
        (received,) = here.server.received
    assert (received.path, received.body["prompt"]) == ("/v1/completions", "The sky is")
    assert "messages" not in received.body
    assert "seed" not in received.body, "greedy"
    assert (one(reply).raw, reply.prompt_tokens, one(reply).answer_tokens) == (" blue", 4, 1)


@pytest.mark.parametrize("written", ["", "/", "/chat/completions", "/completions"])
def test_the_url_may_be_that_of_the_api(tmp_path: Path, written: str) -> None:
    with setting(tmp_path, lambda _: said("Hello")) as here:
        answerer = here.answerer(url=f"{here.server.url}/v1{written}")
        assert [one(reply).text for batch in answerer.answer([request()]) for reply in batch] == ["Hello"]
        assert here.server.received[0].path == "/v1/chat/completions"


def choice(message: dict[str, Any], finish: str = "stop", **usage: Any) -> Reply:
    return Reply(body={"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


def test_what_an_answer_took_is_kept(tmp_path: Path) -> None:
    details = {"reasoning_tokens": 30}
    usage: dict[str, Any] = {
        "prompt_tokens": 12,
        "completion_tokens": 40,
        "completion_tokens_details": details,
    }
    message = {"content": "42", "reasoning_content": "Let me think."}
    with setting(tmp_path, lambda _: choice(message, **usage)) as here:
        (reply,) = here.ask([request()])
    answer = one(reply)
    assert (answer.text, answer.thinking, answer.complete) == ("42", "Let me think.", True)
    assert (reply.prompt_tokens, answer.thinking_tokens, answer.answer_tokens) == (12, 30, 10)
    assert answer.seconds > 0


def test_unknown_usage_is_unknown(tmp_path: Path) -> None:
    with setting(tmp_path, lambda _: Reply(body={"choices": [{"message": {"content": "a"}}]})) as here:
        (reply,) = here.ask([request()])
    assert (reply.prompt_tokens, one(reply).answer_tokens) == (None, None)


def test_calls_of_tools_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    with setting(tmp_path, lambda _: choice({"content": None, "tool_calls": [call]}, "tool_calls")) as here:
        (reply,) = here.ask([request(prompt=Prompt(({"role": "user", "content": "?"},), "", TOOLS))])
    assert one(reply).tool_calls == (Call("weather", {"city": "Bern"}),)


def test_earlier_calls_of_a_conversation_have_their_arguments_as_text(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    messages = (
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
    )
    with setting(tmp_path, lambda _: said("It rains.")) as here:
        here.ask([request(prompt=Prompt(messages))])
        sent = here.server.received[0].body["messages"][1]["tool_calls"][0]
    assert sent["function"]["arguments"] == '{"city": "Bern"}'


@pytest.mark.parametrize(
    ("reply", "text", "truncated"),
    [
        (said("cut of", finish="length"), "cut of", True),
        (said(""), "", False),
        (choice({"content": None, "refusal": "I can't help with that."}), "I can't help with that.", False),
        (choice({"content": [{"type": "text", "text": "in parts"}]}), "in parts", False),
        (said("cut of", finish="max_tokens"), "cut of", True),
    ],
)
def test_unusual_answers_are_answers(tmp_path: Path, reply: Reply, text: str, truncated: bool) -> None:
    with setting(tmp_path, lambda _: reply) as here:
        (found,) = here.ask([request()])
    assert (one(found).text, one(found).truncated) == (text, truncated)


@pytest.mark.parametrize(
    "reply",
    [
        choice({"content": None, "reasoning_content": "It is 42."}),
        choice({"content": "", "reasoning": "It is 42."}),
        choice({"content": ""}, "length"),
        choice({"content": None}, "length"),
    ],
)
def test_thoughts_without_an_answer_are_incomplete(tmp_path: Path, reply: Reply) -> None:
    """A baseline that only thinks, visibly or not, would lose to any answer."""
    with setting(tmp_path, lambda _: reply) as here:
        (found,) = here.ask([request()])
    assert not one(found).complete


def refused(status: int, message: str) -> Reply:
    return Reply(status, {"error": {"message": message}})


@pytest.mark.parametrize(
    ("reply", "problem", "words"),
    [
        (
            choice({"content": None}, "content_filter"),
            Problem.UNANSWERED,
            "content filter held the answer back",
        ),
        (refused(400, "The response was filtered: content_filter"), Problem.UNANSWERED, "content filter"),
        (refused(400, "This model's maximum context length is 8"), Problem.TOO_LONG, "maximum context"),
        (refused(413, "Request too long"), Problem.TOO_LONG, "too long"),
        (refused(422, "no such role"), Problem.UNANSWERED, "rejects the request: HTTP 422"),
        (choice({"content": None}), Problem.UNANSWERED, "a message without content"),
        (choice({}), Problem.UNANSWERED, "a message without content"),
    ],
)
def test_what_fails_one_item_is_counted_and_not_fatal(
    tmp_path: Path, reply: Reply, problem: Problem, words: str
) -> None:
    def script(received: Received) -> Reply:
        return reply if received.body["messages"][-1]["content"] == "bad" else said("good")

    with setting(tmp_path, script) as here:
        bad, good = here.ask([request("bad"), request("fine")])
    assert (bad.answer, bad.problem) == (None, problem)
    assert words in bad.message
    assert one(good).text == "good"


def test_a_request_that_only_fails_is_counted_while_others_are_answered(tmp_path: Path) -> None:
    """Some servers end a request with an error each time; the endpoint itself is well."""
    others = threading.Event()

    def script(received: Received) -> Reply:
        if received.body["messages"][-1]["content"] == "bad":
            others.wait(30)
            return Reply(500)
        others.set()
        return said("good")

    with setting(tmp_path, script) as here:
        replies = {reply.request.item: reply for reply in here.ask([request("bad"), request("fine")], 2)}
    assert replies["sha256:bad"].problem is Problem.UNANSWERED
    assert one(replies["sha256:fine"]).text == "good"


@pytest.mark.parametrize(
    "odd",
    [
        Reply(body=b"<html>Too many people are here</html>"),
        Reply(body={"error": {"message": "overloaded"}}),
        Reply(body={"choices": []}),
        choice({"content": ""}, "error"),
    ],
)
def test_an_odd_response_between_good_ones_is_asked_again(tmp_path: Path, odd: Reply) -> None:
    replies = [said("one"), odd, odd, said("two")]
    with setting(tmp_path, lambda _: replies.pop(0)) as here:
        first, second = here.ask([request("first"), request("second")])
        assert len(here.waits) == 2
    assert (one(first).text, one(second).text) == ("one", "two")


def test_an_endpoint_that_gives_every_answer_up_fails_the_attempt(tmp_path: Path) -> None:
    with (
        setting(tmp_path, lambda _: choice({"content": ""}, "error")) as here,
        pytest.raises(InfrastructureError, match="finish_reason error"),
    ):
        here.ask([request()])


def test_an_endpoint_that_is_away_fails_the_attempt(tmp_path: Path) -> None:
    with setting(tmp_path, lambda _: Reply(503)) as here:
        with pytest.raises(InfrastructureError, match="the endpoint of side candidate"):
            here.ask([request()])
        assert len(here.server.received) == ATTEMPTS


def test_its_own_wait_is_kept(tmp_path: Path) -> None:
    replies = [Reply(429, headers={"Retry-After": "7"}), said("Hello")]
    with setting(tmp_path, lambda _: replies.pop(0)) as here:
        (reply,) = here.ask([request()])
        assert here.waits == [7.0]
    assert one(reply).text == "Hello"


@pytest.mark.parametrize("count", [1, 20])
def test_settings_that_it_never_takes_are_an_error_of_the_run(tmp_path: Path, count: int) -> None:
    with setting(tmp_path, lambda _: refused(400, "temperature is not supported")) as here:
        with pytest.raises(UserError, match="refuses every request"):
            here.ask([request(str(number)) for number in range(count)])
        assert len(here.server.received) <= 8


def test_plain_text_without_its_api_says_what_to_do(tmp_path: Path) -> None:
    with setting(tmp_path, lambda _: Reply(404)) as here, pytest.raises(UserError, match="as messages"):
        here.ask([request(prompt=Prompt(text="The sky is"))])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{"text": "a"}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "hello"}]},
        {"choices": ["hello"]},
        {"error": {"message": "overloaded"}},
        [],
        None,
    ],
)
def test_a_response_of_another_protocol_is_an_error(tmp_path: Path, body: Any) -> None:
    protocol = pytest.raises(UserError, match="use an endpoint with the OpenAI API")
    with setting(tmp_path, lambda _: Reply(body=body)) as here, protocol:
        here.ask([request()])


def test_probabilities_are_not_asked_of_an_endpoint(tmp_path: Path) -> None:
    with setting(tmp_path, lambda _: said("never")) as here:
        (reply,) = here.ask([request(expected="blue", generates=False)])
        assert here.server.received == []
    assert reply.problem is Problem.UNANSWERED


def test_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    """The run ends while requests are on their way: their answers are waited for, and the next pod finds them."""
    with setting(tmp_path, lambda received: said(received.body["messages"][-1]["content"])) as here:
        requests = [request(str(number)) for number in range(10)]
        batches = here.answerer(concurrency=3).answer(requests)
        next(batches)
        batches.close()
        paid = len(here.server.received)
        assert 1 <= paid < 10
        replies = here.ask(requests)
        assert len(here.server.received) == 10
        again = here.ask(requests)
        assert len(here.server.received) == 10
        first, here.journal = here.journal, tmp_path / "other-pod.jsonl"
        with first.open("ab") as stream:
            stream.write(b'{"question": "unfin')
        with closing(here.answerer(others=[first]).answer(requests)) as batches:
            assert sum(len(batch) for batch in batches) == 10, "another pod takes the items over"
        assert len(here.server.received) == 10
    assert {one(reply).text for reply in replies} == {str(number) for number in range(10)}
    assert [one(reply).answer_tokens for reply in again] == [5] * 10
    assert here.uploads


def test_another_model_or_prompt_is_another_question(tmp_path: Path) -> None:
    with setting(tmp_path, lambda _: said("a")) as here:
        here.ask([request("one")])
        here.ask([request("one", seed=1)])
        assert len(here.server.received) == 1, "greedy answers are the same for every seed"
        here.ask([request("one", decoding=Decoding(max_new_tokens=64))])
        here.ask([request("one", repeat=1)])
        assert len(here.server.received) == 3


def test_requests_are_on_their_way_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=30)

    def script(_: Received) -> Reply:
        together.wait()
        return said("together")

    with setting(tmp_path, script) as here:
        replies = here.ask([request(str(number)) for number in range(4)], 4)
    assert [one(reply).text for reply in replies] == ["together"] * 4


def test_a_run_can_stop_while_an_endpoint_is_silent(tmp_path: Path) -> None:
    """An empty batch comes where no reply does; what is on its way is waited for when the run stops."""
    release = threading.Event()

    def script(_: Received) -> Reply:
        release.wait(30)
        return said("late")

    with setting(tmp_path, script) as here:
        batches = here.answerer().answer([request()])
        assert next(batches) == []
        release.set()
        batches.close()
        (reply,) = here.ask([request()])
        assert len(here.server.received) == 1
    assert one(reply).text == "late"


def test_closing_does_not_wait_for_retries(tmp_path: Path) -> None:
    """A pod that is asked to end does not sit out the pauses between tries."""
    tried = threading.Event()

    def script(received: Received) -> Reply:
        if received.body["messages"][-1]["content"] == "good":
            tried.wait(30)
            return said("good")
        tried.set()
        return Reply(429, headers={"Retry-After": "250"})

    with setting(tmp_path, script) as here:
        batches = here.answerer(concurrency=2, sleep=None).answer([request("busy"), request("good")])
        next(batches)
        batches.close()


def test_the_key_is_shown_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad_key = Reply(401, {"error": f"bad key {KEY}"})
    with setting(tmp_path, lambda _: bad_key) as here, pytest.raises(UserError) as failure:
        here.ask([request()])
    assert failure.value.reason == "EndpointKeyRefused"
    assert KEY not in str(failure.value)
    assert KEY not in caplog.text
    assert KEY not in (tmp_path / "journal.jsonl").read_text()
    assert KEY not in json.dumps(here.answerer().identity("candidate"))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_requests_beyond_the_budget_are_not_sent(tmp_path: Path, concurrency: int) -> None:
    requests = [request(f"question {number}") for number in range(9)]
    with setting(tmp_path, lambda _: said("fine")) as here:
        for _ in range(2):
            answerer = here.answerer(concurrency, limits=CallBudget(calls=5))
            with closing(answerer.answer(requests)) as batches:
                replies = [reply for batch in batches for reply in batch]
            assert len(here.server.received) == 5
            assert [reply.problem for reply in replies].count(Problem.BEYOND_BUDGET) == 4
            assert [reply.problem for reply in replies].count(None) == 5


def test_an_endpoint_that_tells_no_tokens_is_charged_the_most(tmp_path: Path) -> None:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    requests = [request(f"question {number}") for number in range(9)]
    with setting(tmp_path, lambda _: Reply(body=body)) as here:
        answerer = here.answerer(1, limits=CallBudget(tokens=600))
        with closing(answerer.answer(requests)) as batches:
            replies = [reply for batch in batches for reply in batch]
    sent = len(here.server.received)
    sizes = [len(canonical_json(received.body)) + 32 for received in here.server.received]
    assert 0 < sent < 9
    assert sum(sizes) <= 600
    assert [reply.problem for reply in replies].count(Problem.BEYOND_BUDGET) == 9 - sent
