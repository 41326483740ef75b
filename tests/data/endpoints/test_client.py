"""Endpoint client: retries, errors that retries cannot help, secret keys."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers.scripted_server import Reply, ScriptedServer, serve

from tunesmith_cluster.certificates import Authority
from tunesmith_contract import layout
from tunesmith_contract.methods import Reward
from tunesmith_data.endpoints.client import ATTEMPTS, KEY_FILE, Endpoint, RequestRefused
from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rewards.build import build_reward_functions

KEY = "sesame-open-1234"
GOOD = Reply(body={"rewards": [1.0]})


class Setting:
    """An endpoint behind a server with a script, whose waits are only counted."""

    def __init__(self, server: ScriptedServer, secret: Path) -> None:
        self.server = server
        self.waits: list[float] = []
        (secret / KEY_FILE).write_text(KEY + "\n")
        self.endpoint = Endpoint(f"{server.url}/score", "the grader", secret, 5, sleep=self.waits.append)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., Setting]]:
    """Makes a setting of replies, given one after the other; the last one for ever."""
    with ExitStack() as stack:

        def build(*replies: Reply) -> Setting:
            left = list(replies)
            server = stack.enter_context(serve(lambda _: left.pop(0) if len(left) > 1 else left[0]))
            setting = Setting(server, tmp_path)
            stack.callback(setting.endpoint.close)
            return setting

        yield build


def test_what_can_get_better_is_asked_again(scripted: Callable[..., Setting]) -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    setting = scripted(
        Reply(503),
        Reply(0),
        Reply(429, headers={"Retry-After": "7"}),
        Reply(429, headers={"Retry-After": in_a_minute}),
        Reply(500, headers={"Retry-After": "soon"}),
        GOOD,
    )
    assert setting.endpoint.post({"a": 1}) == {"rewards": [1.0]}
    assert [request.body for request in setting.server.received] == [{"a": 1}] * 6
    assert {request.authorization for request in setting.server.received} == {f"Bearer {KEY}"}
    first, second, asked, dated, vague = setting.waits
    assert asked == 7
    assert 50 < dated <= 60
    assert max(first, second, vague) <= 30


def test_it_ends_when_nothing_gets_better(scripted: Callable[..., Setting]) -> None:
    setting = scripted(Reply(503, {"busy": KEY}))
    with pytest.raises(InfrastructureError, match=r"the grader at .* cannot be reached: HTTP 503") as caught:
        setting.endpoint.post({})
    assert len(setting.server.received) == ATTEMPTS
    assert KEY not in caught.value.message
    patient = scripted(Reply(429, headers={"Retry-After": "86400"}))
    with pytest.raises(InfrastructureError):
        patient.endpoint.post({})
    assert patient.waits == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401, {"error": f"wrong key {KEY}"}), "rejects the key"),
        (Reply(404, {}), "or the name of the model"),
        (
            Reply(307, {}, {"Location": "http://127.0.0.1:9/elsewhere"}),
            "redirects to http://127.0.0.1:9/else",
        ),
        (Reply(200, b"<html>"), "not answer with JSON"),
        (Reply(200, b"[" * 200_000), "not answer with JSON"),
    ],
)
def test_what_cannot_get_better_is_the_users(
    scripted: Callable[..., Setting], reply: Reply, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    setting = scripted(reply)
    with caplog.at_level(logging.DEBUG), pytest.raises(UserError, match=message) as caught:
        setting.endpoint.post({})
    assert len(setting.server.received) == 1
    assert KEY not in caught.value.message + caplog.text


class _Trickle(BaseHTTPRequestHandler):
    """Response that has no end, of parts that come at once or one by one."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        size = 1 if self.path == "/slow" else 2**20
        with suppress(OSError):
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (size, b" " * size))
                if size == 1:
                    threading.Event().wait(0.05)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    """URL of a server whose responses have no end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Trickle) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_response_that_does_not_end_counts_as_no_response(endless: str, tmp_path: Path) -> None:
    """Each part comes in time; the whole never does."""
    waits: list[float] = []
    endpoint = Endpoint(f"{endless}/slow", "the grader", tmp_path, 0.2, sleep=waits.append)
    with pytest.raises(InfrastructureError, match=r"did not end within 0\.2 s"):
        endpoint.post({})
    assert len(waits) == ATTEMPTS - 1
    endpoint.close()


def test_a_response_of_any_size_is_not_read(endless: str, tmp_path: Path) -> None:
    endpoint = Endpoint(f"{endless}/fast", "the grader", tmp_path, 60)
    with pytest.raises(RequestRefused, match="more than 64 MiB"):
        endpoint.post({})
    endpoint.close()


def test_a_wait_that_is_too_long_is_said(scripted: Callable[..., Setting]) -> None:
    with pytest.raises(InfrastructureError, match="it asks to wait 100,000 s"):
        scripted(Reply(429, headers={"Retry-After": "100000"})).endpoint.post({})


def test_a_refused_request_is_told_apart(scripted: Callable[..., Setting]) -> None:
    with pytest.raises(RequestRefused, match="HTTP 400"):
        scripted(Reply(400, {"error": "too long"})).endpoint.post({})


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    waits: list[float] = []
    endpoint = Endpoint("http://127.0.0.1:9/", "the grader", tmp_path, 1, sleep=waits.append)
    with pytest.raises(InfrastructureError, match="ConnectError"):
        endpoint.post({})
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("url", ["grader.svc/score", "ftp://grader/score"])
def test_an_address_that_is_none_is_not_asked_again(tmp_path: Path, url: str) -> None:
    waits: list[float] = []
    with pytest.raises(UserError, match="write an http or https URL"):
        Endpoint(url, "the grader", tmp_path, 1, sleep=waits.append).post({})
    assert waits == []


def test_a_key_that_cannot_be_sent_is_not_shown(scripted: Callable[..., Setting], tmp_path: Path) -> None:
    setting = scripted(GOOD)
    (tmp_path / KEY_FILE).write_text(f"{KEY}\nsecond line")
    with pytest.raises(UserError, match="one line of ASCII") as caught:
        setting.endpoint.post({})
    assert KEY not in caught.value.message
    assert setting.server.received == []


def judge(url: str, secrets: Path) -> Any:
    """The scores of an endpoint for two answers."""
    reward = Reward.model_validate({"name": "grader", "endpoint": {"url": url}})
    (function,), _ = build_reward_functions([reward], [], Storage(secrets=secrets))
    return function(prompts=["a", "b"], completions=["c", "d"], completion_ids=[[1], [2]], answer=["e", None])


def test_a_reward_by_an_endpoint(tmp_path: Path) -> None:
    folder = tmp_path / layout.reward_role("grader")
    folder.mkdir()
    (folder / KEY_FILE).write_text(KEY)
    with serve(lambda _: Reply(body={"rewards": [0.5, -2]})) as server:
        assert judge(server.url, tmp_path) == [0.5, -2.0]
    (request,) = server.received
    assert request.body == {"prompts": ["a", "b"], "completions": ["c", "d"], "answers": ["e", None]}
    assert request.authorization == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(body={"rewards": [1]}), "1 numbers for 2 answers"),
        (Reply(body={"rewards": ["good", "bad"]}), "let it answer so"),
        (Reply(body=[1, 2]), "let it answer so"),
        (Reply(body=b'{"rewards": [1, NaN]}'), "not a finite number"),
        (Reply(422, {}), "refuses"),
    ],
)
def test_a_reward_endpoint_that_answers_otherwise(tmp_path: Path, reply: Reply, message: str) -> None:
    with serve(lambda _: reply) as server, pytest.raises(UserError, match=message):
        judge(server.url, tmp_path)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_missing_is_told_from_a_wrong_one(tmp_path: Path, status: int) -> None:
    with serve(lambda _: Reply(status, {"error": "who are you?"})) as server:
        endpoint = Endpoint(f"{server.url}/score", "the grader", tmp_path, 5)
        with pytest.raises(
            UserError, match=r"wants a key .*: name a Secret .*secretRef.*file token"
        ) as missing:
            endpoint.post({})
        (tmp_path / KEY_FILE).write_text(KEY)
        with pytest.raises(UserError, match=r"rejects the key .*: put a key that it takes") as wrong:
            endpoint.post({})
        endpoint.close()
    assert {missing.value.reason, wrong.value.reason} == {"EndpointKeyRefused"}


def test_authorities_of_all_pods_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    authority.issue("grader", "grader", hosts=["127.0.0.1"])
    certificate = authority.path("grader"), authority.path("grader", "key")

    waits: list[float] = []

    def ask(url: str) -> Any:
        with closing(Endpoint(url, "the grader", tmp_path, 5, sleep=waits.append)) as endpoint:
            return endpoint.post({})

    with serve(lambda _: GOOD, certificate) as server:
        with pytest.raises(InfrastructureError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(server.url)
        monkeypatch.setenv("SSL_CERT_FILE", authority.path("ca"))
        assert ask(server.url) == GOOD.body
