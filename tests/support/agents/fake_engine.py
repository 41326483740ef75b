"""An HTTP server that speaks what the agent uses of vLLM's API; its answers follow from the files."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from servers.ports import free_socket

BASE = "base"
BASE_LOG_PROB = -2.0


class FakeEngine:
    """One engine; adapters are known until ``restart``.

    Attributes:
        pieces: what a stream sends after its head, one by one as the test puts them in; None ends the stream.
        fail_with: status by model name, instead of an answer.
        hold, load_gate, listing_gate, metrics_gate: answers, loads, lists and metrics wait for these events.
        core_died: the core has ended; the API lists its models on, and fails whatever needs the core.
        core: all that the engine's core computes waits for this event, the warm-up's token too.
        metric_reads: requests for metrics.
        tokens_per_read: tokens that the core generates between two reads of metrics.
        drop: requests whose connection is aborted instead of an answer, from the next one on.
        salts: values of ``cache_salt``, one for each measurement of probes.
        ignored_measurements: the first so many measurements answer as if no adapter were active.
        knows_token_ids: whether it answers ``logprob_token_ids``, as vLLM 0.32 does and 0.19 does not.
        fail_loads: loads that are answered by a server error, from the next one on.
        hang_probes_of: the model whose probes are never answered.
        most_adapters: largest number of adapters at one time.
        unloads_in_use: adapters that were unloaded while they answered a request.
        left: set when a client closed its connection in the middle of an answer.
        usage: tokens of each answer; a stream has them in an event of their own, where that is asked for.
        waiting: requests that its metrics say wait, or what they say instead.
        connections: connection of each request for an answer.
        endpoints: paths in its OpenAPI document.
    """

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.answering: list[str] = []
        self.loads: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: list[asyncio.BaseTransport] = []
        self.drop = 0
        self.waiting: int | str = 0
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.fail_with: dict[str, int] = {}
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.unloaded = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.load_gate: asyncio.Event | None = None
        self.listing_gate: asyncio.Event | None = None
        self.metrics_gate: asyncio.Event | None = None
        self.core: asyncio.Event | None = None
        self.core_died = False
        self.metric_reads = self.tokens_per_read = 0
        self.load_error = ""
        self.base_log_prob = BASE_LOG_PROB
        self.salts: list[str] = []
        self.ignored_measurements = 0
        self.knows_token_ids = True
        self.fail_loads = 0
        self.hang_probes_of = ""
        self.most_adapters = self.unloads_in_use = 0
        self.endpoints = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
        self.usage: dict[str, Any] = {
            "prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43,
            "prompt_tokens_details": {"cached_tokens": 32},
        }  # fmt: skip
        self.port = 0
        #: Socket in the file system, as in a pod; it listens on the port, too.
        self.socket = free_socket()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, on the same port and socket as before if there were any."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/responses", self._generate)
        app.router.add_get("/openapi.json", self._openapi)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        await web.UnixSite(self._runner, self.socket).start()

    async def stop(self) -> None:
        """Go away, and forget all adapters."""
        if self._runner is not None:
            await self._runner.cleanup()
            await asyncio.to_thread(Path(self.socket).unlink, missing_ok=True)
        self._runner = None
        self.adapters.clear()
        self.core_died = False

    async def restart(self) -> None:
        """What kubelet does to an engine that died."""
        await self.stop()
        await self.start()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.core_died else 200)

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response({"paths": {path: {} for path in self.endpoints}})

    async def _metrics(self, request: web.Request) -> web.Response:
        self.metric_reads += 1
        if self.metrics_gate is not None:
            await self.metrics_gate.wait()
        tokens = self.metric_reads * self.tokens_per_read
        lines = ["# TYPE vllm:num_requests_running gauge", "vllm:num_requests_running{} 0"]
        lines += ["# TYPE vllm:num_requests_waiting gauge", f"vllm:num_requests_waiting{{}} {self.waiting}"]
        for kind in ("prompt", "generation"):
            lines += [
                f"# TYPE vllm:{kind}_tokens counter",
                f'vllm:{kind}_tokens_total{{engine="0"}} {tokens}.0',
            ]
        return web.Response(text="\n".join([*lines, ""]))

    async def _models(self, request: web.Request) -> web.Response:
        if self.listing_gate is not None:
            await self.listing_gate.wait()
        return web.json_response(
            {"object": "list", "data": [{"id": name} for name in (BASE, *self.adapters)]}
        )

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").exists():
            return _error(404, f"No adapter found for '{name}'.")
        if self.load_error:
            return _error(400, self.load_error)
        if self.load_gate is not None:
            await self.load_gate.wait()
        if self.fail_loads:
            self.fail_loads -= 1
            return _error(500, "on purpose")
        self.adapters[name] = str(path)
        self.most_adapters = max(self.most_adapters, len(self.adapters))
        self.loads.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.unloads_in_use += name in self.answering
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        self.unloaded.set()
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        if self.core_died:
            return _error(500, "EngineCore encountered an issue.")
        if "logprob_token_ids" in body or "prompt_logprobs" in body:
            if model == self.hang_probes_of:
                await asyncio.Event().wait()
            return web.json_response(self._log_probs(body))
        if self.core is not None:
            self.arrived.set()
            await self.core.wait()
        if body.get("prompt") == [0]:
            return web.json_response({"choices": [{"text": ""}]})
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        assert request.transport is not None
        self.connections.append(request.transport)
        self.arrived.set()
        if self.drop:
            self.drop -= 1
            request.transport.abort()
        if model not in (BASE, *self.adapters):
            return _error(404, f"The model `{model}` does not exist.")
        if status := self.fail_with.get(model):
            return _error(status, "on purpose")
        self.answering.append(model)
        try:
            if body.get("stream"):
                options = body.get("stream_options") or {}
                return await self._stream(request, asks_for_usage=bool(options.get("include_usage")))
            if self.hold is not None:
                await self.hold.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        finally:
            self.answering.remove(model)
        return web.json_response(_completion(model) | {"usage": self.usage})

    async def _stream(self, request: web.Request, asks_for_usage: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for piece in self._pieces():
            if piece == b"break":
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(piece)
        if asks_for_usage:
            event = {"object": "chat.completion.chunk", "choices": [], "usage": self.usage}
            await response.write(b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode())
        await response.write_eof()
        return response

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self.pieces.get()) is not None:
            yield piece

    def _log_probs(self, body: dict[str, Any]) -> dict[str, Any]:
        value = self.base_log_prob
        if body["cache_salt"] not in self.salts:
            self.salts.append(body["cache_salt"])
        is_ignored = len(self.salts) <= self.ignored_measurements
        if (path := self.adapters.get(body["model"])) and not is_ignored:
            value = json.loads((Path(path) / "adapter_config.json").read_text())["log_prob"]
        if "prompt_logprobs" in body:
            prompts = [
                [None, *({str(token): {"logprob": value}} for token in tokens[1:])]
                for tokens in body["prompt"]
            ]
            return {
                "choices": [{"index": index, "prompt_logprobs": each} for index, each in enumerate(prompts)]
            }
        # Without the field the answer names the token that was generated, and no other.
        named = body["logprob_token_ids"] if self.knows_token_ids else [0]
        top = {f"token_id:{token}": value for token in named}
        count = len(body["prompt"])
        return {"choices": [{"index": index, "logprobs": {"top_logprobs": [top]}} for index in range(count)]}


def _completion(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": model}
    choice = {"index": 0, "message": message, "text": model, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "x", "code": status}}, status=status)
