"""An engine that answers at once, so that only a proxy's cost is seen. It takes traces.

Arguments: ``PORT SOCKET``; it listens at both.

The tokens of a stream come at a steady pace; each has the time when it was sent as its text, by the monotonic clock
in nanoseconds.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "base",
        "choices": [
            {
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Forty-two. " * 8},
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 30, "total_tokens": 70},
    }
).encode()  # fmt: skip
BASE_LOG_PROB = -2.0
STREAM_TOKENS = 200
TOKEN_SECONDS = 0.005
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def build_answer(body: bytes) -> bytes:
    """A complete response."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def build_event(choices: list[Any], **more: Any) -> bytes:
    """A chunk with one event of a stream."""
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "base"}
    return build_chunk(json.dumps({**document, "choices": choices, **more}).encode())


def build_chunk(data: bytes) -> bytes:
    """A chunk with the data of one event."""
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


CHAT = build_answer(ANSWER)
#: A token whose text is a number of nineteen digits.
TOKEN = build_event([{"index": 0, "delta": {"content": "0" * 19}, "finish_reason": None}]).replace(
    b"0" * 19, b"%019d"
)
LAST = build_event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = build_event([], usage={"prompt_tokens": 40, "completion_tokens": 200, "total_tokens": 240})
DONE = build_chunk(b"[DONE]") + b"0\r\n\r\n"


class Backend(asyncio.Protocol):
    """Answers chat requests with a constant; adapters and probes so that the agent can prove them."""

    adapters: dict[str, str] = {}  # noqa: RUF012 - one engine per process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._data = b""

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(data) < end + 4 + length:
                break
            body, data = data[end + 4 : end + 4 + length], data[end + 4 + length :]
            if not head.startswith(b"post /v1/chat/completions"):
                self._transport.write(build_answer(self._control(head, body)))
            elif b'"stream":true' in body or b'"stream": true' in body:
                self._stream(with_usage=b"include_usage" in body)
            else:
                self._transport.write(CHAT)
        self._data = data

    def _stream(self, *, with_usage: bool) -> None:
        loop = asyncio.get_running_loop()
        self._transport.write(STREAM_HEAD)
        begun = loop.time()
        for number in range(1, STREAM_TOKENS + 1):
            loop.call_at(begun + number * TOKEN_SECONDS, self._send_token)
        end = LAST + (USAGE if with_usage else b"") + DONE
        loop.call_at(begun + (STREAM_TOKENS + 1) * TOKEN_SECONDS, self._transport.write, end)

    def _send_token(self) -> None:
        self._transport.write(TOKEN % time.monotonic_ns())

    def _control(self, head: bytes, data: bytes) -> bytes:
        if head.startswith(b"post /v1/traces"):
            return b""
        body: dict[str, Any] = json.loads(data) if data else {}
        if b"/v1/load_lora_adapter" in head:
            self.adapters[body["lora_name"]] = body["lora_path"]
        elif b"/v1/completions" in head:
            return json.dumps({"choices": self._log_probs(body)}).encode()
        models = [{"id": name, "object": "model"} for name in ("base", *self.adapters)]
        return json.dumps({"object": "list", "data": models}).encode()

    def _log_probs(self, body: dict[str, Any]) -> list[Any]:
        value = BASE_LOG_PROB
        if path := self.adapters.get(body["model"]):
            value = json.loads((Path(path) / "adapter_config.json").read_text())["log_prob"]
        top = {f"token_id:{token}": value for token in body.get("logprob_token_ids", ())}
        return [{"index": index, "logprobs": {"top_logprobs": [top]}} for index in range(len(body["prompt"]))]


async def serve(port: int, path: str) -> None:
    """Answer until the process ends, on a port and at a socket in the file system."""
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(Backend, "127.0.0.1", port),
        await loop.create_unix_server(Backend, path),
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
