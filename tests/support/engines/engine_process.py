"""The real engine, vLLM on CPUs, as a process of its own; and the tiny models and adapters for it."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
from models.order import Order
from pydantic import TypeAdapter
from servers.ports import free_socket

from tunesmith_contract.agent import Version
from tunesmith_images.venvs import make_environment

#: Python of the environment with vLLM; empty if there is none.
ENGINE_PYTHON = os.environ.get("TUNESMITH_ENGINE_PYTHON", "")
#: Until it answers, on a machine that is busy.
ENGINE_SECONDS = 300
END_SECONDS = 30
ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1", "TORCH_COMPILE_DISABLE": "1",
    # Each would bind itself to the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
}  # fmt: skip
SERVER = ("-m", "vllm.entrypoints.openai.api_server")
#: Program with a server for each parser.
PARSERS = str(Path(__file__).with_name("many_parsers.py"))
SEQUENCES = 8
ARGUMENTS = [
    "--served-model-name=base", "--enable-lora", "--max-loras=4", "--max-cpu-loras=8", "--max-lora-rank=16",
    "--block-size=32", "--enable-prompt-tokens-details", "--max-model-len=256", "--dtype=float32",
    "--enforce-eager", f"--max-num-seqs={SEQUENCES}",
]  # fmt: skip


_RUNNING = re.compile(r"^vllm:num_requests_running(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class EngineProcess:
    """vLLM at one socket, which can be stopped, killed and started again.

    Args:
        model: folder of the model; the log lies beside it.
        arguments: more arguments of vLLM's server.
        program: what Python runs, with its first arguments.
    """

    def __init__(self, model: Path, *arguments: str, program: Sequence[str] = SERVER) -> None:
        self.socket = free_socket()
        self._model, self._arguments, self._program = model, arguments, program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it listens some seconds later."""
        environment = {**os.environ, **ENVIRONMENT, "HOME": str(self._model), "PYTHONPATH": ""}
        # Where it was killed, the socket is left, and vLLM does not start beside it.
        Path(self.socket).unlink(missing_ok=True)
        with self._model.with_name(f"engine-of-{self._model.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ENGINE_PYTHON, *self._program, f"--model={self._model}", f"--uds={self.socket}", *ARGUMENTS,
                 *self._arguments],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process of the API."""
        assert self._process is not None
        return self._process.pid

    @property
    def core(self) -> int:
        """Process of the engine's core, a child of the API's."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        names = {int(child): Path(f"/proc/{child}/comm").read_text() for child in children}
        return next(child for child, name in names.items() if "EngineCor" in name)

    async def running(self) -> int:
        """Number of requests that it computes, by its own count."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket)) as session,
            session.get("http://localhost/metrics") as answer,
        ):
            found = _RUNNING.search(await answer.text())
        return int(float(found[1])) if found else 0

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """All its processes stand still until the block ends."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    @contextmanager
    def core_stopped(self) -> Iterator[None]:
        """The core stands still until the block ends; the API goes on."""
        core = self.core
        os.kill(core, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(core, signal.SIGCONT)

    def kill(self) -> None:
        """Kill all its processes, as when a container runs out of memory."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_core(self) -> None:
        """Kill the core alone."""
        os.kill(self.core, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it has ended by itself.

        Raises:
            subprocess.TimeoutExpired: it does not.
        """
        assert self._process is not None
        self._process.wait(END_SECONDS)

    def end(self) -> None:
        """End it, by force where it does not end by itself: it forgets a signal that comes while it starts."""
        assert self._process is not None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self.kill()
        Path(self.socket).unlink(missing_ok=True)


@asynccontextmanager
async def running_engine(
    model: Path, *arguments: str, program: Sequence[str] = SERVER
) -> AsyncIterator[EngineProcess]:
    """An engine that starts with the block and ends with it; see ``EngineProcess``."""
    engine = EngineProcess(model, *arguments, program=program)
    engine.start()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.end)


def make_versions(folder: Path, script: str, *arguments: str) -> dict[str, Version]:
    """Model and adapters, made by a script of ``tests/support/models`` where torch and PEFT are."""
    python = os.environ.get("TUNESMITH_TRAINER_PYTHON") or make_environment("trainer") / "bin/python"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}/contract/src:{ROOT}/tests/support",
        # Tiny matrices gain nothing from several threads, and these wait for each other on busy cores.
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [python, ROOT / "tests/support/models" / script, folder, *arguments], check=True, env=environment
    )
    return TypeAdapter(dict[str, Version]).validate_json((folder / "versions.json").read_bytes())


def make_ordered(folder: Path, order: Order) -> dict[str, Version]:
    """Models and adapters that a test orders; the versions by the names of the adapters."""
    (folder / "order.json").write_text(order.model_dump_json())
    return make_versions(folder, "answering_adapters.py")
