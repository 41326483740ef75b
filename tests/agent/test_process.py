"""The agent as a process: settings, SIGTERM, logs."""

import asyncio
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.fake_engine import FakeEngine
from agents.wire import ASK, post

from tunesmith_agent.http.limits import Limits
from tunesmith_agent.settings import parse_settings


async def start(engine: FakeEngine, folder: Path) -> tuple[asyncio.subprocess.Process, dict[str, int]]:
    """An agent whose engine is up, and its ports by name; it may open few files at first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunesmith_agent",
        "--host=127.0.0.1", "--port=0", "--monitoring-port=0", f"--engine-port={engine.port}",
        "--lame-duck-seconds=0", f"--desired-dir={folder}/none", f"--state-dir={folder}/state",
        f"--cache-dir={folder}/cache",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096)),
        stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )  # fmt: skip
    assert process.stderr is not None
    entries: list[dict[str, Any]] = []
    while not {"listening", "engine is up"} <= {entry["message"] for entry in entries}:
        entries.append(json.loads(await process.stderr.readline()))
    listening = next(entry for entry in entries if entry["message"] == "listening")
    return process, {name: listening[name] for name in ("port", "monitoring_port")}


async def test_sigterm_ends_it_with_zero(engine: FakeEngine, tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        process, ports = await start(engine, tmp_path)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
        url = f"http://127.0.0.1:{ports['monitoring_port']}"
        async with aiohttp.ClientSession(url) as session, session.get("/healthz") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        rest = (await process.stderr.read()).splitlines()
        assert [json.loads(line)["message"] for line in rest][-1] == "draining"
        assert await process.wait() == 0


async def test_answer_of_a_killed_agent_does_not_look_whole(engine: FakeEngine, tmp_path: Path) -> None:
    """Not even to a client of HTTP/1.0, whose answers end with the connection."""
    engine.pieces.put_nowait(b"data: one\n\n")
    async with asyncio.timeout(30):
        process, ports = await start(engine, tmp_path)
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["port"])
        request = post({**ASK, "model": "base", "stream": True})
        writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await reader.readuntil(b"data: one\n\n")
        process.kill()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        await process.wait()


def test_arguments_win_over_the_environment() -> None:
    environment = {"POD_NAME": "pod", "TUNESMITH_BASE_MODEL": "smol", "TUNESMITH_DEPLOYMENT": ""}
    settings = parse_settings(["--base-model=base", "--drain-seconds=3"], environment)
    assert (settings.pod_name, settings.base_model, settings.drain_seconds) == ("pod", "base", 3.0)
    assert parse_settings([], {"TUNESMITH_PROOF_TOLERANCE": "0.2"}).proof_tolerance == 0.2


def test_limits_are_arguments() -> None:
    limits = parse_settings(["--connections=5", "--read-seconds=1.5"], {}).limits
    assert (limits.connections, limits.read_seconds) == (5, 1.5)
    assert limits.body_bytes == Limits().body_bytes


def test_unknown_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--token=x"], {})
    assert "unrecognized arguments" in capsys.readouterr().err
