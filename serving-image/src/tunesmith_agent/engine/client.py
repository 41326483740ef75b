"""Client of the engine's control API, for everything but the forwarded requests."""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from tunesmith_agent.http.address import Address
from tunesmith_contract.artifact import Probe

from .log_probs import (
    build_prompt_requests,
    build_requests,
    ignores_token_ids,
    parse_log_probs,
    parse_prompt_log_probs,
)
from .session import open_session

#: The first request after a start may compile kernels.
GENERATE_SECONDS = 180.0
LOAD_SECONDS = 120.0
QUICK_SECONDS = 10.0

#: Control requests at the same time.
MAX_CONNECTIONS = 100

#: A port that nothing listens at, or a socket that is not there yet.
_AWAY = (ConnectionRefusedError, FileNotFoundError)

#: Status of ``/health`` once the core has died.
_CORE_DIED = 503

#: Paths of every engine that generates text.
_USUAL_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


class EngineUnavailable(Exception):
    """Engine that does not answer, or answers with a server error: a retry can help.

    Attributes:
        status: status of its answer; 0 without one.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class EngineGone(EngineUnavailable):
    """Engine that refuses connections, or whose core has died: it was stopped, or has not started."""


class EngineRefused(Exception):
    """Request that the engine refuses as wrong: the same request will be refused again."""


class EngineClient:
    """Client of one engine; an async context manager."""

    def __init__(self, address: Address, base_model: str) -> None:
        self._address = address
        self._base_model = base_model
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "EngineClient":
        self._session = open_session(self._address, MAX_CONNECTIONS)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def check_health(self) -> None:
        """Ask whether the engine's core lives: where it has died, the API goes on listing models for seconds.

        Raises:
            EngineGone: the core has died, or the engine was stopped.
            EngineUnavailable: it does not answer.
        """
        try:
            await self._request("GET", "/health", None, QUICK_SECONDS)
        except EngineRefused:
            pass  # An image of one's own may have no such path.
        except EngineUnavailable as error:
            if error.status == _CORE_DIED:
                raise EngineGone(str(error)) from error
            raise

    async def adapters(self) -> frozenset[str]:
        """Names of the adapters that the engine has loaded.

        Raises:
            EngineUnavailable: it is down or starting.
        """
        listing = await self._call("GET", "/v1/models", seconds=QUICK_SECONDS)
        return frozenset(model["id"] for model in listing["data"]) - {self._base_model}

    async def generate_token(self) -> None:
        """Generate one token with the base model; the first request compiles what the engine compiles lazily.

        Raises:
            EngineUnavailable: the engine is down, or generates nothing.
        """
        await self._generate({"model": self._base_model, "prompt": [0], "max_tokens": 1, "temperature": 0})

    async def endpoints(self) -> frozenset[str]:
        """Paths that the engine serves, by its own OpenAPI document; those of all engines where it has none.

        Raises:
            EngineGone: it was stopped.
        """
        try:
            document = await self._call("GET", "/openapi.json", seconds=QUICK_SECONDS)
        except EngineGone:
            raise
        except (EngineRefused, EngineUnavailable):
            return _USUAL_PATHS
        paths = document.get("paths") if isinstance(document, dict) else None
        return frozenset(paths) | _USUAL_PATHS if isinstance(paths, dict) else _USUAL_PATHS

    async def load(self, name: str, path: str) -> None:
        """Load an adapter under a name that is new to the engine.

        Raises:
            EngineRefused: this engine can't serve the adapter; the message is the engine's.
            EngineUnavailable: the engine is down.
        """
        body = {"lora_name": name, "lora_path": path}
        await self._call("POST", "/v1/load_lora_adapter", body, seconds=LOAD_SECONDS)

    async def unload(self, name: str) -> None:
        """Unload an adapter; an absent one is no error.

        Raises:
            EngineUnavailable: the engine is down.
        """
        try:
            body = {"lora_name": name}
            await self._call("POST", "/v1/unload_lora_adapter", body, seconds=QUICK_SECONDS)
        except EngineRefused:
            if name in await self.adapters():
                raise

    async def log_probs(self, model: str, probes: Sequence[Probe], cache_salt: str) -> list[list[float]]:
        """Log-probabilities of each probe's continuation under a model, in nats per token.

        Args:
            model: name of the model; empty for the base model.
            probes: the probes.
            cache_salt: a new value computes everything anew, as if nothing had been cached.

        Raises:
            EngineRefused: the engine does not accept these tokens.
            EngineUnavailable: the engine is down.
        """
        name = model or self._base_model
        requests = build_requests(name, probes, cache_salt)
        answers = [await self._generate(requests[0])]
        try:
            if ignores_token_ids(requests[0], answers[0]):
                requests = build_prompt_requests(name, probes, cache_salt)
                return parse_prompt_log_probs([await self._generate(body) for body in requests], probes)
            answers += [await self._generate(body) for body in requests[1:]]
            return parse_log_probs(answers, probes)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineRefused(f"The engine's answer has no log-probabilities: {error!r}") from error

    async def _generate(self, body: Mapping[str, object]) -> Any:
        return await self._call("POST", "/v1/completions", body, seconds=GENERATE_SECONDS)

    async def _call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, seconds: float
    ) -> Any:
        answer = await self._request(method, path, body, seconds)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError:
            return answer.decode(errors="replace")

    async def _request(
        self, method: str, path: str, body: Mapping[str, object] | None, seconds: float
    ) -> bytes:
        assert self._session is not None, "use the client as a context manager"
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(method, path, json=body, timeout=timeout) as response:
                answer = await response.read()
        except aiohttp.ClientConnectorError as error:
            # Other failures, such as too many open files, are this process's and say nothing about the engine.
            kind = EngineGone if isinstance(error.os_error, _AWAY) else EngineUnavailable
            raise kind(f"{method} {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(f"{method} {path}: {error!r}") from error
        if response.status >= 500:
            raise EngineUnavailable(f"{method} {path}: status {response.status}", response.status)
        if response.status >= 400:
            raise EngineRefused(_message(answer))
        return answer


def _message(answer: bytes) -> str:
    try:
        return str(orjson.loads(answer)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return answer.decode(errors="replace")[:300]
