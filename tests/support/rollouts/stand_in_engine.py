"""Stand-in for vLLM as a process of its own: ``python -m rollouts.stand_in_engine SOCKET BASE_MODEL``.

It has the same HTTP surface, as far as the agent uses it, and answers at once. An adapter is what its files say when it
is loaded: ``adapter_config.json`` has the log-probability of each probed token and a ``note``, which is the mark that
every answer repeats. The first word of a mark may be ``fails`` (chat is answered by 500) or ``hangs`` (chat is never
answered). An adapter for another base model has no effect, and answers ``wrong base model``.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

#: Log-probability of each token without an adapter, by the URI of the base model.
BASE_LOG_PROBS = {"pvc://models/base": -2.0, "pvc://models/other": -3.0}
#: Pieces of a streamed answer, each with the mark, and seconds between them.
PIECES = 4
PIECE_SECONDS = 0.004

_JSON = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 500: b"Internal Server Error"}


class Engine(asyncio.Protocol):
    """One connection; the adapters are those of the process."""

    adapters: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - one engine per process
    base_log_prob: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(data) < end + 4 + length:
                break
            body, data = data[end + 4 : end + 4 + length], data[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1], json.loads(body) if body else {})
        self._data = data

    def _answer(self, path: bytes, body: dict[str, Any]) -> None:
        if path == b"/v1/chat/completions":
            self._chat(body)
        elif path == b"/v1/completions":
            self._send(200, {"choices": self._choices(body)})
        elif path == b"/v1/load_lora_adapter":
            config = json.loads((Path(body["lora_path"]) / "adapter_config.json").read_text())
            self.adapters[body["lora_name"]] = config
            self._send(200, {})
        elif path == b"/v1/unload_lora_adapter":
            known = self.adapters.pop(body["lora_name"], None)
            self._send(200 if known else 404, {})
        else:
            self._send(200, {"object": "list", "data": [{"id": name} for name in ("base", *self.adapters)]})

    def _chat(self, body: dict[str, Any]) -> None:
        adapter = self.adapters.get(body["model"])
        if adapter is None:
            self._send(404, {"error": {"message": "no such model", "code": 404}})
            return
        mark: str = adapter["note"] if self._suits(adapter) else "wrong base model"
        if mark.startswith("fails"):
            self._send(500, {"error": {"message": "on purpose", "code": 500}})
        elif not mark.startswith("hangs"):
            if body.get("stream"):
                self._transport.write(_STREAM)
                self._stream(body["model"], mark, PIECES)
            else:
                message = {"role": "assistant", "content": mark}
                self._send(200, {"model": body["model"], "choices": [{"index": 0, "message": message}]})

    def _stream(self, model: str, mark: str, left: int) -> None:
        """Send one piece, and the others after a while each."""
        if left:
            event = {"model": model, "choices": [{"index": 0, "delta": {"content": mark}}]}
            self._send_chunk(b"data: %b\n\n" % json.dumps(event).encode())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PIECE_SECONDS, self._stream, model, mark, left - 1)
        else:
            self._send_chunk(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")

    def _send_chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers to probes, whose tokens all have the adapter's log-probability."""
        adapter = self.adapters.get(body["model"])
        value = adapter["log_prob"] if adapter and self._suits(adapter) else self.base_log_prob
        top = {f"token_id:{token}": value for token in body.get("logprob_token_ids", ())}
        prompts = range(len(body["prompt"]))
        return [{"index": index, "text": "", "logprobs": {"top_logprobs": [top]}} for index in prompts]

    def _suits(self, adapter: dict[str, Any]) -> bool:
        """True if the adapter was trained on this engine's base model."""
        return bool(adapter["base_log_prob"] == self.base_log_prob)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self._transport.write(_JSON % (status, _REASONS[status], len(data), data))


async def serve(path: str) -> None:
    """Answer at a socket until the process ends."""
    server = await asyncio.get_running_loop().create_unix_server(Engine, path)
    await server.serve_forever()


if __name__ == "__main__":
    Engine.base_log_prob = BASE_LOG_PROBS[sys.argv[2]]
    uvloop.run(serve(sys.argv[1]))
