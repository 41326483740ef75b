"""Engine in a container beside the evaluation, which serves one model after the other on its order."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tunesmith_contract.engine_order import (
    ENGINE_PORT,
    ORDER_FILE,
    STATE_FILE,
    EngineOrder,
    EngineState,
)
from tunesmith_data.failures import InfrastructureError, UserError

#: Time to start and to load a model. A large one takes long from slow storage.
START_SECONDS = 7200.0
POLL_SECONDS = 0.5
#: One answer: the longest, in a full batch.
ANSWER_SECONDS = 3600.0
#: The first request may compile kernels, and an adapter may lie on slow storage.
LOAD_SECONDS = 600.0


class EngineProcess:
    """Engine in a container of the same pod.

    Args:
        folder: folder that both containers share.
        port: port of the engine on the loopback address.
        sleep: waits for a number of seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        port: int = ENGINE_PORT,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._sleep, self._clock = folder, sleep, clock
        self.port = port
        self._client = self._open_client()
        self._number = 0

    def start(self, arguments: Sequence[str]) -> None:
        """Order the engine to serve a model, and wait until it does.

        Args:
            arguments: arguments of vLLM's server.

        Raises:
            UserError: vLLM refuses the model or its arguments.
            InfrastructureError: it was killed, or does not start in time.
        """
        self._order(arguments)
        limit = self._clock() + START_SECONDS
        while not self._is_healthy():
            self.check()
            if self._clock() > limit:
                raise InfrastructureError(
                    "EngineNotStarted", f"the engine did not start within {START_SECONDS:,.0f} seconds"
                )
            self._sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Order the engine to end its model, and close the connections to it."""
        self._client.close()
        self._client = self._open_client()
        self._order(())

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter.

        Raises:
            UserError: vLLM can't serve it.
        """
        body = {"lora_name": name, "lora_path": str(folder)}
        response = self._post("/v1/load_lora_adapter", body, LOAD_SECONDS)
        if response.is_error:
            message = (
                f"vLLM can't load the adapter in {folder}: {_message(response)}: write engine: Transformers"
            )
            raise UserError("EngineRefused", message)

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of ``/v1/completions``.

        Raises:
            UserError: vLLM refuses the request.
            InfrastructureError: it has ended.
        """
        response = self._post("/v1/completions", body, ANSWER_SECONDS)
        if response.is_error:
            raise UserError("EngineRefused", f"vLLM refuses a request: {_message(response)}")
        answer: dict[str, Any] = response.json()
        return answer

    def check(self) -> None:
        """Check that vLLM has not ended.

        Raises:
            UserError: it ended by itself, since something is wrong with the model or its arguments.
            InfrastructureError: it was killed.
        """
        state = self._state()
        if state is None:
            return
        words = state.cause or state.message.strip()[-1500:]
        message = (
            f"vLLM ended with exit code {state.exit_code}: {words} (see the log of the container engine)"
        )
        if state.exit_code < 0:
            raise InfrastructureError("EngineKilled", message)
        raise UserError("EngineRefused", message)

    def _post(self, path: str, body: Mapping[str, Any], seconds: float) -> httpx.Response:
        try:
            response = self._client.post(path, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            self.check()
            raise InfrastructureError("EngineGone", f"the engine does not answer: {error!r}") from error
        if response.status_code >= 500:
            self.check()
            raise InfrastructureError("EngineGone", f"the engine failed: {_message(response)}")
        return response

    def _open_client(self) -> httpx.Client:
        """Client whose connections are opened by its requests."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=ANSWER_SECONDS, trust_env=False)

    def _is_healthy(self) -> bool:
        try:
            return self._client.get("/health", timeout=10).is_success
        except httpx.HTTPError:
            return False

    def _order(self, arguments: Sequence[str]) -> None:
        """Write the next order. A restarted evaluation finds the last one, and goes on from its number."""
        self._number = max(self._number, self._last_number()) + 1
        (self._folder / STATE_FILE).unlink(missing_ok=True)
        order = EngineOrder(number=self._number, arguments=tuple(arguments))
        draft = self._folder / f"{ORDER_FILE}.draft"
        draft.write_text(order.to_json(), encoding="utf-8")
        os.replace(draft, self._folder / ORDER_FILE)

    def _last_number(self) -> int:
        try:
            return EngineOrder.model_validate_json((self._folder / ORDER_FILE).read_bytes()).number
        except FileNotFoundError:
            return 0

    def _state(self) -> EngineState | None:
        try:
            state = EngineState.model_validate_json((self._folder / STATE_FILE).read_bytes())
        except FileNotFoundError:
            return None
        return state if state.number == self._number else None


def _message(response: httpx.Response) -> str:
    """Message of an error of vLLM."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
