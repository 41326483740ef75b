"""The agent as a process of its own, in front of a fake engine of this process."""

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from agents.fake_engine import FakeEngine

from tunesmith_contract.agent import STATE_FILE, DesiredAlias, DesiredState

#: Files that the process may open at first, and at most.
FILES = (256, 4096)


@dataclass
class AgentProcess:
    """A process whose engine is up."""

    process: asyncio.subprocess.Process
    desired_dir: Path
    port: int
    monitoring_port: int

    def want(self, generation: int, *aliases: DesiredAlias) -> None:
        """Write the mounted file."""
        state = DesiredState(generation=generation, aliases=aliases)
        new = self.desired_dir / "new"
        new.write_text(state.to_json())
        new.rename(self.desired_dir / STATE_FILE)

    async def monitored(self, path: str) -> tuple[int, str]:
        """Status and text of an answer on the port for monitoring."""
        url = f"http://127.0.0.1:{self.monitoring_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def until_monitored(self, path: str, *parts: str) -> str:
        """Text of the first answer with all these parts; what it tells of changes once a second."""
        while True:
            text = (await self.monitored(path))[1]
            if all(part in text for part in parts):
                return text
            await asyncio.sleep(0.1)

    @property
    def resident_bytes(self) -> int:
        """Memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


@asynccontextmanager
async def agent_process(
    engine: FakeEngine, folder: Path, *arguments: str, file_bytes: int = resource.RLIM_INFINITY
) -> AsyncIterator[AgentProcess]:
    """A process until the block ends.

    Args:
        folder: for the mounted file, what is kept, and the cache; claims are mounted in ``mnt``.
        arguments: more arguments of the command.
        file_bytes: what is written beyond this size of a file fails, as on a full disk.
    """

    def set_limits() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, FILES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    desired_dir = folder / "desired"
    desired_dir.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunesmith_agent",
        "--host=127.0.0.1", "--port=0", "--monitoring-port=0", f"--engine-socket={engine.socket}",
        "--lame-duck-seconds=0", f"--desired-dir={desired_dir}", f"--state-dir={folder}/state",
        f"--cache-dir={folder}/cache", f"--mount-root={folder}/mnt", *arguments,
        preexec_fn=set_limits, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )  # fmt: skip
    assert process.stderr is not None
    entries: dict[str, dict[str, Any]] = {}
    while not {"listening", "engine is up"} <= entries.keys():
        entry = json.loads(await process.stderr.readline())
        entries[entry["message"]] = entry
    ports = entries["listening"]
    try:
        yield AgentProcess(process, desired_dir, ports["port"], ports["monitoring_port"])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
