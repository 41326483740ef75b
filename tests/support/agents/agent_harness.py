"""An agent in front of a fake engine, both in this process; storage is a folder."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from agents.fake_engine import BASE_LOG_PROB, FakeEngine

from tunesmith_agent.app import Agent
from tunesmith_agent.control.desired_state import Source
from tunesmith_agent.http.address import TcpAddress
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.settings import Settings
from tunesmith_agent.telemetry.access_log import AccessLogs
from tunesmith_contract.agent import DesiredAlias, DesiredState, LoadState, Version
from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import File, Lineage, Manifest, Probe
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

LINEAGE = Lineage(
    namespace="n", job="j", uid="u", base_model="hf://o/r", base_model_revision="r",
    dataset_digest="sha256:" + "0" * 64, image="i", parameters={}, versions={},
)  # fmt: skip

#: A port of this machine that nobody listens on: only root could, and none of its services has it.
_REFUSING_PORT = 1


@dataclass
class Storage:
    """A claim named ``artifacts``; each artifact says which log-probability the fake engine answers with."""

    root: Path
    versions: int = 0

    def commit(
        self,
        log_prob: float = -1.0,
        *,
        proven: float | None = None,
        note: str = "",
        chat: ChatFormat | None = None,
        base_log_prob: float = BASE_LOG_PROB,
    ) -> Version:
        """Write an artifact whose manifest promises ``proven`` (what it has, unless told otherwise)."""
        self.versions += 1
        config = {"log_prob": log_prob, "note": note or str(self.versions), "base_log_prob": base_log_prob}
        files = {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": b"weights",
        }
        probe = Probe(
            token_ids=tuple(range(1, 43)),
            prompt_length=2,
            base_log_prob=base_log_prob,
            tuned_log_prob=log_prob if proven is None else proven,
        )
        listed = tuple(
            File(path=name, size_bytes=len(data), sha256=sha256_digest(data)) for name, data in files.items()
        )
        manifest = Manifest(
            rank=8, target_modules=("q",), files=listed, lineage=LINEAGE, probes=(probe,), chat=chat
        )
        folder = self.root / "pvc/artifacts/sha256" / manifest.digest.removeprefix("sha256:")
        folder.mkdir(parents=True)
        for name, data in {**files, MANIFEST_FILE: manifest.to_bytes()}.items():
            (folder / name).write_bytes(data)
        uri = f"pvc://artifacts/sha256/{folder.name}"
        return Version(version=self.versions, digest=manifest.digest, uri=uri)

    def folder(self, version: Version) -> Path:
        """Where a version lies."""
        return self.root / version.uri.replace("pvc://", "pvc/")


@dataclass
class Running:
    """An agent that serves, and what a test wants of it."""

    agent: Agent
    engine: FakeEngine
    port: int
    monitoring_port: int
    stop: asyncio.Event
    done: asyncio.Task[bool]
    generation: int = 0
    seconds: float = 10

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def monitoring_url(self) -> str:
        return f"http://127.0.0.1:{self.monitoring_port}"

    def want(self, *aliases: DesiredAlias) -> None:
        """Push the next generation."""
        self.generation += 1
        state = DesiredState(generation=self.generation, aliases=aliases)
        assert self.agent.store.offer(state.to_json(), Source.OPERATOR)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the control loop brings about."""
        with self.agent.reconciler.changes() as changed:
            async with asyncio.timeout(self.seconds):
                while not condition():
                    changed.clear()
                    await changed.wait()

    def state(self, version: Version) -> LoadState | None:
        """How far a version is."""
        for loaded in self.agent.reconciler.report("boot").versions:
            if loaded.digest == version.digest:
                return loaded.state
        return None

    def reason(self, version: Version) -> str:
        """Why a version is not active."""
        report = self.agent.reconciler.report("boot")
        return next(loaded.reason for loaded in report.versions if loaded.digest == version.digest)

    async def active(self, *versions: Version) -> None:
        """Wait until versions are active."""
        await self.until(lambda: all(self.state(version) is LoadState.ACTIVE for version in versions))

    def cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refuse connections to the engine, before the agent has looked whether it is there."""
        self.agent.pool.retire()
        monkeypatch.setattr(self.agent.pool, "_address", TcpAddress("127.0.0.1", _REFUSING_PORT))

    async def failed(self, version: Version) -> str:
        """Wait until a version has failed; returns the reason."""
        await self.until(lambda: self.state(version) is LoadState.FAILED)
        return self.reason(version)


@asynccontextmanager
async def running_agent(
    engine: Any, root: Path, limits: Limits | None = None, seconds: float = 10, **settings: Any
) -> AsyncIterator[Running]:
    """Run an agent of a new pod until the block ends; ``seconds`` bounds each wait for its control loop.

    The agent of a pod that ran before gets the ``state_dir`` and the ``cache_dir`` of that one.
    """
    values = Settings(
        host="127.0.0.1", port=0, monitoring_port=0, engine_socket=engine.socket, mount_root=root,
        desired_dir=root, state_dir=Path(tempfile.mkdtemp(dir=root.parent)),
        cache_dir=Path(tempfile.mkdtemp(dir=root.parent)),
        credentials_dir=root, proof_pause_seconds=0, lame_duck_seconds=0, drain_seconds=5,
        access_logs=AccessLogs.NONE, limits=limits or Limits(),
    )  # fmt: skip
    agent = Agent(replace(values, **settings))
    stop = asyncio.Event()
    listening: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    done = asyncio.create_task(agent.run(stop, lambda *ports: listening.set_result(ports)))
    started: list[asyncio.Future[Any]] = [listening, done]
    await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
    running = Running(agent, engine, *listening.result(), stop, done, seconds=seconds)
    try:
        await running.until(lambda: agent.metrics.engine_up)
        yield running
    finally:
        stop.set()
        await done
