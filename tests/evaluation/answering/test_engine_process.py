"""Client of the engine beside the evaluation: orders, and what is told when the engine does not serve."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.engine_order import ORDER_FILE, STATE_FILE, EngineOrder, EngineState
from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_evaluation.answering.engine_process import EngineProcess

ANSWER = {"choices": [{"token_ids": [1, 2]}]}


class FakeServer(http.server.BaseHTTPRequestHandler):
    """Stands for vLLM's server."""

    def do_GET(self) -> None:
        """Health."""
        self._send(200, {})

    def do_POST(self) -> None:
        """Requests and adapters, refused where their name says so."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = str(body.get("lora_name") or body.get("model"))
        if name == "refused":
            self._send(400, {"error": {"message": "rank 600 is too large"}})
        elif name == "broken":
            self._send(500, {"error": {"message": "engine is dead"}})
        else:
            self._send(200, ANSWER)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def read_order(folder: Path) -> EngineOrder:
    return EngineOrder.model_validate_json((folder / ORDER_FILE).read_bytes())


def test_orders_count_up_and_go_on_after_a_restart(tmp_path: Path, port: int) -> None:
    engine = EngineProcess(tmp_path, port)
    engine.start(["--model", "a"])
    assert read_order(tmp_path) == EngineOrder(number=1, arguments=("--model", "a"))
    engine.stop()
    assert read_order(tmp_path) == EngineOrder(number=2)
    EngineProcess(tmp_path, port).start(["--model", "b"])
    assert read_order(tmp_path) == EngineOrder(number=3, arguments=("--model", "b"))


def test_answers_and_refusals(tmp_path: Path, port: int) -> None:
    engine = EngineProcess(tmp_path, port)
    engine.start(["--model", "a"])
    engine.load_adapter("candidate", tmp_path)
    assert engine.complete({"model": "candidate"}) == ANSWER
    with pytest.raises(UserError, match="rank 600 is too large: write engine: Transformers"):
        engine.load_adapter("refused", tmp_path)
    with pytest.raises(UserError, match="vLLM refuses a request"):
        engine.complete({"model": "refused"})
    with pytest.raises(InfrastructureError, match="engine is dead"):
        engine.complete({"model": "broken"})


@pytest.mark.parametrize(("code", "error"), [(1, UserError), (-9, InfrastructureError)])
def test_an_engine_that_ends_is_told(tmp_path: Path, code: int, error: type[Exception]) -> None:
    def end(seconds: float) -> None:
        state = EngineState(number=1, exit_code=code, message="ValueError: no such model")
        (tmp_path / STATE_FILE).write_text(state.to_json())

    with pytest.raises(error, match="ValueError: no such model"):
        EngineProcess(tmp_path, port=9, sleep=end).start(["--model", "a"])


def test_an_engine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    times = iter(range(0, 10**6, 3600))
    engine = EngineProcess(tmp_path, port=9, sleep=lambda seconds: None, clock=lambda: float(next(times)))
    with pytest.raises(InfrastructureError, match="did not start within 7,200 seconds"):
        engine.start(["--model", "a"])
