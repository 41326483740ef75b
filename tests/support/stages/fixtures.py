"""Fixtures of the tests of data preparation, evaluation and the trainer."""

import gc
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from models.tiny_models import make_model
from servers.storage_servers import open_registry, s3
from stages.stage_world import ProgressServer, RowBuilders, World, make_rows

if TYPE_CHECKING:
    from browser import Browser

__all__ = [
    "browser",
    "frozen_heap",
    "make",
    "models",
    "one_thread",
    "open_registry",
    "pytest_collection_modifyitems",
    "s3",
    "server",
    "shared_world",
    "world",
]

# Libraries warn of what they themselves do; ours must not warn.
THIRD_PARTY_WARNINGS = (
    "ignore::FutureWarning:transformers",
    "ignore::FutureWarning:trl",
    "ignore::FutureWarning:peft",
    "ignore::DeprecationWarning",
    "ignore::UserWarning:peft",
    "ignore::UserWarning:torch",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Third-party warnings do not fail the tests that have these fixtures."""
    for item in items:
        if "one_thread" in getattr(item, "fixturenames", ()):
            for warning in THIRD_PARTY_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread, and a busy machine takes it away."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def frozen_heap() -> None:
    """What is imported by now is no garbage: trainers look for some several times a run, mostly among libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of three architectures."""
    root = tmp_path_factory.mktemp("models")
    texts = [json.dumps(row) for row in make_rows(200)]
    for architecture in ("llama", "qwen3", "mistral"):
        make_model(root / architecture, architecture, texts)
    return root


@pytest.fixture
def world(tmp_path: Path, models: Path) -> World:
    """A fresh world."""
    root = tmp_path / "mnt"
    root.mkdir()
    return World(root, models)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory, models: Path) -> World:
    """A world for all tests of a module: each takes a uid of its own."""
    return World(tmp_path_factory.mktemp("mnt"), models)


@pytest.fixture(scope="session")
def make() -> RowBuilders:
    """Builders of rows."""
    return RowBuilders()


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    """Progress server on a free port."""
    received: list[tuple[str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield ProgressServer(f"http://127.0.0.1:{server.server_port}/progress", received)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """One browser for all tests of the module."""
    from browser import open_browser  # most tests need no Selenium

    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
