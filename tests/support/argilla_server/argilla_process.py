"""A real Argilla server with what it needs: OpenSearch, made of its libraries, and Redis. Installed on first use."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from servers.ports import free_port
from servers.storage_servers import running

from tunesmith_images.cache import REPOSITORY, cache_dir, content_key, locked
from tunesmith_images.system import ensure_programs
from tunesmith_images.venvs import make_environment

OWNER_KEY = "owner-key-of-the-tests"
PASSWORD = "open-sesame-42"

#: Two large programs on a busy machine.
_START_SECONDS = 120
_FOLDER = "tests/support/argilla_server"
_INPUTS = [f"{_FOLDER}/pom.xml", f"{_FOLDER}/SearchNode.java"]
_PROGRAMS = {"mvn": "maven", "javac": "default-jdk-headless", "redis-server": "redis-server"}


@dataclass(frozen=True)
class ArgillaServer:
    """A server with one workspace; people have keys."""

    url: str
    workspace: str = "argilla"

    def call(self, method: str, path: str, key: str = OWNER_KEY, **body: object) -> dict[str, Any]:
        """What the server answers to a request, as its web page sends it."""
        response = httpx.request(
            method,
            f"{self.url}/api/v1{path}",
            headers={"X-Argilla-Api-Key": key},
            json=body or None,
            timeout=60,
        )
        response.raise_for_status()
        return dict(response.json())

    def add_person(self, name: str, role: str = "annotator") -> str:
        """Someone who works in the workspace; returns the key."""
        user = self.call("POST", "/users", username=name, first_name=name, password=PASSWORD, role=role)
        workspaces = self.call("GET", "/me/workspaces")["items"]
        self.call("POST", f"/workspaces/{workspaces[0]['id']}/users", user_id=user["id"])
        return str(user["api_key"])


@contextmanager
def run_argilla(folder: Path) -> Iterator[ArgillaServer]:
    """A server whose data lie in ``folder``, ended at the end."""
    ensure_programs(_PROGRAMS)
    python = make_environment("argilla") / "bin" / "python"
    search_port, redis_port, port = free_port(), free_port(), free_port()
    environment = {
        "ARGILLA_HOME_PATH": str(folder / "home"),
        "ARGILLA_SEARCH_ENGINE": "opensearch",
        "ARGILLA_ELASTICSEARCH": f"http://127.0.0.1:{search_port}",
        "ARGILLA_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server = [str(python), "-m", "argilla_server"]
    redis = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
    with ExitStack() as stack:
        search = _search_node(folder, search_port)
        stack.enter_context(running(search, search_port, folder / "search.log", _START_SECONDS))
        stack.enter_context(running(redis, redis_port, folder / "redis.log"))
        _prepare_database(server, environment)
        start = [*server, "start", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        stack.enter_context(running(start, port, folder / "argilla.log", _START_SECONDS, **environment))
        yield ArgillaServer(f"http://127.0.0.1:{port}")


def _prepare_database(server: list[str], environment: dict[str, str]) -> None:
    owner = ["users", "create_default", "--api-key", OWNER_KEY, "--password", PASSWORD, "--quiet"]
    for arguments in (["migrate"], owner):
        command = [*server, "database", *arguments]
        subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)


def _search_node(folder: Path, port: int) -> list[str]:
    """The command of a search engine whose data lie below ``folder``."""
    home = folder / "search"
    (home / "config").mkdir(parents=True)
    built = _build_search_node()
    # It lives for a minute: neither the best machine code nor several threads of a collector are worth their time.
    short_lived = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return ["java", *short_lived, "-cp", f"{built}/classes:{built}/lib/*", "SearchNode", str(home), str(port)]


def _build_search_node() -> Path:
    """Fetch the libraries and compile, unless done before; the folder of both."""
    folder = cache_dir() / "search-node" / content_key(REPOSITORY, _INPUTS, "search-node")
    done = folder / ".complete"
    with locked(cache_dir() / "search-node.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            pom, source = (REPOSITORY / path for path in _INPUTS)
            copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
            _checked([*copy, f"-DoutputDirectory={folder / 'lib'}"])
            _checked(["javac", "-cp", f"{folder / 'lib'}/*", "-d", str(folder / "classes"), str(source)])
            done.touch()
    return folder


def _checked(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout[-2000:]}")
