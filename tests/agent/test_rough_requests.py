"""Requests as nobody should write them: each gets an answer or a 4xx in OpenAI's form, and nothing stays behind."""

import gzip
import json
from typing import Any

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, connect, once, post

from tunesmith_agent.http.limits import Limits
from tunesmith_contract.agent import Version

MESSAGES = b'"messages":[{"role":"user","content":"x"}]'


def body(**fields: Any) -> bytes:
    return json.dumps({**ASK, **fields}).encode()


def written(members: bytes) -> bytes:
    """A body with members as they are written, whether that is JSON or not."""
    return b'{"model":"expenses",%b,%b}' % (members, MESSAGES)


def completion(prompt: Any, **fields: Any) -> bytes:
    data = json.dumps({"model": "expenses", "prompt": prompt, **fields}).encode()
    return post(data, path="/v1/completions")


BODIES = {
    "model: a number": (body(model=3), 400),
    "model: a list": (body(model=[]), 400),
    "model: empty": (body(model=""), 404),
    "model: very long": (body(model="x" * 100_000), 404),
    "model: line ends": (body(model="expenses\r\nx: y"), 404),
    "model: a zero byte": (body(model="a\0b"), 404),
    "model: half a character": (b'{"model":"\\ud800",%b}' % MESSAGES, 400),
    "model: no version": (body(model="expenses@"), 404),
    "model: a version that is gone": (body(model="expenses@0123456789ab"), 404),
    "n: none": (body(n=0), 400),
    "n: huge": (body(n=10**30), 400),
    "max_tokens: huge": (body(max_tokens=2**64), 400),
    "max_tokens: more than a double": (written(b'"max_tokens":1e400'), 400),
    "NaN": (written(b'"temperature":NaN'), 400),
    "Infinity": (written(b'"temperature":-Infinity'), 400),
    "a number of 5,000 digits": (written(b'"seed":' + b"9" * 5_000), 400),
    "stop: many": (body(stop=["a"] * 17), 400),
    "stop: numbers": (body(stop=[1]), 400),
    "logit_bias: 10,000": (body(logit_bias={str(number): 1 for number in range(10_000)}), 400),
    "logit_bias: a list": (body(logit_bias=[1]), 400),
    "10,000 levels": (written(b'"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000), 400),
    "300 levels": (written(b'"metadata":' + b'{"a":' * 300 + b"1" + b"}" * 300), 400),
    "twice the same, the last one is bad": (written(b'"n":1,"n":9999'), 400),
    "twice the same, the last one is good": (written(b'"n":9999,"n":1'), 200),
    "bytes that are no UTF-8": (written(b'"user":"\xff\xfe"'), 400),
    "half a character as bytes": (written(b'"user":"\xed\xa0\x80"'), 400),
    "half a character": (written(b'"user":"\\ud800"'), 400),
    "both halves": (written(b'"user":"\\ud83d\\ude00"'), 200),
    "nothing": (b"", 400),
    "null": (b"null", 400),
    "a list": (b"[]", 400),
    "something behind it": (body() + b"x", 400),
    "a byte order mark": (b"\xef\xbb\xbf" + body(), 400),
    "UTF-16": (json.dumps(ASK).encode("utf-16"), 400),
    "an image of the disk": (
        body(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        ),
        400,
    ),
    "an image of no form": (
        body(messages=[{"role": "user", "content": [{"type": ["image_url"], "image_url": 1}]}]),
        400,
    ),
    "tools of no form": (body(tools=[1]), 400),
    "a tool of no form": (body(tools=[{"type": "function", "function": 3}], tool_choice="required"), 200),
    "a format of no form": (body(response_format={"type": ["x"]}), 400),
    "50,000 members without a value": (body(**{f"k{number}": None for number in range(50_000)}), 200),
    "a long name": (body(**{"k" * 100_000: 1}), 400),
    "a name with line ends": (body(**{"a\r\nb": 1}), 400),
}
REQUESTS = {
    **{name: (post(data), status) for name, (data, status) in BODIES.items()},
    "no content type": (post().replace(b"Content-Type: application/json\r\n", b""), 415),
    "another content type": (post().replace(b"application/json", b"text/plain"), 415),
    "a compressed body": (post(gzip.compress(body()), "Content-Encoding: gzip"), 415),
    "not compressed": (post(body(), "Content-Encoding: Identity"), 200),
    "another expectation": (post(body(), "Expect: 200-ok"), 417),
    "a version that is gone": (post(body(), "x-tunesmith-version: 0123456789ab"), 404),
    "a version of another alias": (post(body(), "x-tunesmith-version: other@0123456789ab"), 400),
    "a version of bytes": (post(body(), "x-tunesmith-version: _").replace(b"_", b"\xff\xfe"), 404),
    "a long version": (post(body(), "x-tunesmith-version: " + "a" * 20_000), 404),
    "a key of bytes": (post(body(), "x-tunesmith-key: _").replace(b"_", b"\xff\xfe"), 200),
    "a trace of no form": (post(body(), "traceparent: 00-zz", "x-request-id: " + "a" * 5_000), 200),
    "another method": (post().replace(b"POST", b"PUT", 1), 405),
    "another path": (post(path="/v1/../v1/chat/completions"), 404),
    "a chunk of no size": (post(b"", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
    "a chunk of any size": (post(b"", "Transfer-Encoding: chunked") + b"f" * 18 + b"\r\n", 400),
    "a length below nothing": (post().replace(b"Content-Length: ", b"Content-Length: -"), 400),
    "a length without end": (post().replace(b"Content-Length: ", b"Content-Length: " + b"9" * 30), 400),
    "a large head": (post(body(), "x-a: " + "a" * 40_000), 431),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "65 prompts": (completion(["a"] * 65), 400),
    "prompts of two kinds": (completion(["a", 1]), 400),
    "16 answers to each of 5 prompts": (completion(["a"] * 5, n=16), 400),
    "a token of 30 digits": (completion([10**30]), 400),
    "a prompt of no form": (completion({}), 400),
}


async def test_each_gets_an_answer_and_leaves_nothing_behind(agent: Running, expenses: Version) -> None:
    for name, (request, status) in REQUESTS.items():
        sent = len(agent.engine.requests)
        answer = await once(agent, request)
        assert answer.status == status, (name, answer.body)
        assert (len(agent.engine.requests) > sent) == (status == 200), name
        if status != 200:
            error = json.loads(answer.body)["error"]
            assert {"message", "type", "param", "code"} <= error.keys(), name
            assert len(error["message"]) < 500, name
    assert (await once(agent, post())).status == 200


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_body_is_asked_for_where_its_client_waits(
    agent: Running, expenses: Version, is_known: bool
) -> None:
    """Also on a connection with a head that came before without the expectation."""
    async with connect(agent) as wire:
        if is_known:
            assert (await wire.ask(post())).status == 200
        head, end, data = post(body(), "Expect: 100-continue").partition(b"\r\n\r\n")
        wire.writer.write(head + end)
        assert (await wire.head())[0] == 100
        assert (await wire.ask(data)).status == 200
        # The same without waiting, in two pieces.
        head, end, data = post(body()).partition(b"\r\n\r\n")
        wire.writer.write(head + end)
        await wire.writer.drain()
        assert (await wire.ask(data)).status == 200


async def test_a_body_that_never_comes_takes_no_room(engine: FakeEngine, storage: Storage) -> None:
    """Its head came before, so it is read without a parser."""
    async with (
        running_agent(engine, storage.root, Limits(read_seconds=0.1)) as running,
        connect(running) as wire,
    ):
        request = post({**ASK, "model": "base"})
        assert (await wire.ask(request)).status == 200
        head, end, data = request.partition(b"\r\n\r\n")
        refused = await wire.ask(head + end + data[:5])
        assert (refused.status, refused.message) == (408, "The request did not arrive in time.")
        assert await wire.reader.read() == b""
        await running.until(lambda: not running.agent.server.shares.held)
