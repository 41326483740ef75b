"""Processes that are measured: the engine's stand-in, the agent, vllm-router and LiteLLM, each on one core."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.agent_harness import Storage

from tunesmith_contract.agent import DesiredAlias, DesiredState
from tunesmith_images.compiled_agent import make_compiled_agent
from tunesmith_images.venvs import make_environment

LOAD_CORE, MEASURED_CORE = "0", "1"
ALIAS = "expenses"
KEY = "sk-0123456789abcdef"
#: Keys of other clients.
OTHER_KEYS = tuple(f"sk-{number:04}-{key:08}" for number in range(124) for key in range(8))
#: Limits of every kind, of clients whose requests are measured.
LIMITS = {
    "requestsPerMinute": 10**9,
    "tokensPerMinute": 10**12,
    "budget": {"tokens": 10**15, "period": "Month"},
}
#: The Python of pods is Debian's or a public image's, both built with profiles. One that is built without takes about
#: half as long again, so the agent, and LiteLLM, are measured with the system's wherever it has the same version.
PYTHON = (
    shutil.which(f"python{sys.version_info.major}.{sys.version_info.minor}", path="/usr/bin")
    or sys.executable
)
#: Until LiteLLM's proxy answers.
START_SECONDS = 180.0


@dataclass(frozen=True)
class Side:
    """One process that answers chat completions.

    Attributes:
        model: the name to ask for.
    """

    name: str
    url: str
    model: str
    pid: int


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(core: str, command: Sequence[str], url: str, log: Path, **environment: str) -> Iterator[int]:
    """A process on one core, from when ``url`` answers until the block ends; gives its id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command], stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        wait_until_answering(url, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_answering(
    url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = START_SECONDS
) -> None:
    """Ask until the answer is a good one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_desired(folder: Path) -> None:
    """One alias in the middle of a rollout."""
    storage = Storage(folder / "mnt")
    stable, candidate = storage.commit(-1.0), storage.commit(-0.5)
    alias = DesiredAlias(name=ALIAS, stable=stable, candidate=candidate, weight=50)
    (folder / "desired.json").write_text(DesiredState(generation=1, aliases=(alias,)).to_json())


def write_keys(folder: Path) -> Path:
    """A mounted Secret with a thousand keys, each of a client with every kind of limit; its folder."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / "bench").write_text(json.dumps({"key": KEY, "adapters": [ALIAS], **LIMITS}))
    for number in range(0, len(OTHER_KEYS), 8):
        entry = {"keys": OTHER_KEYS[number : number + 8], **LIMITS}
        (keys / f"client-{number}").write_text(json.dumps(entry))
    return keys


def agent_command(folder: Path, state: Path, port: int, monitoring_port: int, *more: str) -> list[str]:
    """The agent as a pod starts it, on other ports.

    Args:
        folder: with the mounted file and the mounted claims.
        state: the pod's own disk.
        more: further arguments, among them where the engine is.
    """
    return [
        PYTHON, "-m", "tunesmith_agent",
        "--host=127.0.0.1", f"--port={port}", f"--monitoring-port={monitoring_port}",
        f"--mount-root={folder}/mnt", f"--desired-dir={folder}",
        f"--state-dir={state}/state", f"--cache-dir={state}/cache", "--lame-duck-seconds=0", *more,
    ]  # fmt: skip


def python_version() -> str:
    """Version of the Python that is measured."""
    command = [PYTHON, "-c", "import platform; print(platform.python_version(), platform.python_compiler())"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def python_path(*first: Path) -> str:
    """Folders in which another Python finds the sources of the checkout and the packages of this one.

    Args:
        first: folders that come before them.
    """
    return os.pathsep.join((*map(str, first), os.environ["PYTHONPATH"], sysconfig.get_path("purelib")))


class Sides:
    """Sides that run at the same time until the stack ends; one that is not asked takes next to nothing.

    Args:
        folder: an empty folder.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._engine_port = free_port()
        self._engine = f"http://127.0.0.1:{self._engine_port}"
        self._engine_socket = folder / "engine.sock"
        write_desired(folder)
        self._keys = write_keys(folder)

    def start_engine(self) -> Side:
        """Start the engine's stand-in, which all others pass requests to."""
        command = [
            sys.executable, str(Path(__file__).with_name("instant_backend.py")), str(self._engine_port),
            str(self._engine_socket),
        ]  # fmt: skip
        pid = self._run("backend", LOAD_CORE, command, f"{self._engine}/health")
        return Side("backend", self._engine, "base", pid)

    def start_agent(
        self,
        name: str,
        *,
        writes: bool = True,
        has_keys: bool = True,
        by_socket: bool = True,
        is_compiled: bool = True,
    ) -> Side:
        """Start an agent.

        Args:
            writes: an access log of all requests, and traces.
            has_keys: clients need keys, and have limits.
            by_socket: it reaches the engine at a socket in the file system, as in a pod; otherwise on a port.
            is_compiled: with the compiled modules, as in its image; otherwise all of it is interpreted.
        """
        state = self._folder / name.replace(" ", "-")
        state.mkdir()
        traces = f"--traces-endpoint={self._engine}/v1/traces"
        more = ["--access-logs=All", traces] if writes else ["--access-logs=None"]
        if has_keys:
            more.append(f"--keys-dir={self._keys}")
        port, monitoring_port = free_port(), free_port()
        more.append(
            f"--engine-socket={self._engine_socket}" if by_socket else f"--engine-port={self._engine_port}"
        )
        command = agent_command(self._folder, state, port, monitoring_port, *more)
        url = f"http://127.0.0.1:{monitoring_port}/readyz"
        compiled = (make_compiled_agent(),) if is_compiled else ()
        pid = self._run(name, MEASURED_CORE, command, url, PYTHONPATH=python_path(*compiled))
        return Side(name, f"http://127.0.0.1:{port}", ALIAS, pid)

    def start_router(self) -> Side:
        """Start vllm-router with its defaults."""
        port = free_port()
        command = [
            str(make_environment("router") / "bin/vllm-router"), "--host", "127.0.0.1", "--port", str(port),
            "--worker-urls", self._engine, "--policy", "round_robin",
            "--log-level", "error", "--prometheus-port", str(free_port()),
        ]  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        pid = self._run("vllm-router", MEASURED_CORE, command, f"{url}/health")
        return Side("vllm-router", url, "base", pid)

    def start_litellm(self) -> Side:
        """Start LiteLLM's proxy with one worker, its master key, and no database."""
        port = free_port()
        config = self._folder / "litellm.yaml"
        parameters = {"model": "openai/base", "api_base": f"{self._engine}/v1", "api_key": "none"}
        document = {
            "model_list": [{"model_name": "base", "litellm_params": parameters}],
            "general_settings": {"master_key": KEY},
        }
        # JSON is YAML.
        config.write_text(json.dumps(document))
        environment_path = make_environment("litellm")
        packages = next(environment_path.glob("lib/python*/site-packages"))
        command = [
            PYTHON, str(environment_path / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1",
            "--port", str(port), "--num_workers", "1", "--telemetry", "False",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        # The list of prices is on the Internet otherwise, and a line is written on each request.
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "PYTHONPATH": str(packages),
        }
        pid = self._run("LiteLLM", MEASURED_CORE, command, f"{url}/health/liveliness", **environment)
        return Side("LiteLLM", url, "base", pid)

    def _run(self, name: str, core: str, command: Sequence[str], url: str, **environment: str) -> int:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        return self._stack.enter_context(running(core, command, url, log, **environment))
