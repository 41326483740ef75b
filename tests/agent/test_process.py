"""The agent as a process: settings, SIGTERM, logs."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.fake_engine import FakeEngine

from tunesmith_agent.settings import parse_settings


async def test_sigterm_ends_it_with_zero(engine: FakeEngine, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunesmith_agent",
        "--host=127.0.0.1", "--port=0", f"--engine-port={engine.port}",
        "--lame-duck-seconds=0", f"--desired-dir={tmp_path}/none", f"--state-dir={tmp_path}/state",
        f"--cache-dir={tmp_path}/cache",
        stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )  # fmt: skip
    assert process.stderr is not None
    entries: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not {"listening", "engine is up"} <= {entry["message"] for entry in entries}:
            entries.append(json.loads(await process.stderr.readline()))
        port = next(entry["port"] for entry in entries if entry["message"] == "listening")
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url) as session, session.get("/healthz") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        rest = (await process.stderr.read()).splitlines()
        assert [json.loads(line)["message"] for line in rest][-1] == "draining"
        assert await process.wait() == 0


def test_arguments_win_over_the_environment() -> None:
    environment = {"POD_NAME": "pod", "TUNESMITH_BASE_MODEL": "smol", "TUNESMITH_DEPLOYMENT": ""}
    settings = parse_settings(["--base-model=base", "--drain-seconds=3"], environment)
    assert (settings.pod_name, settings.base_model, settings.drain_seconds) == ("pod", "base", 3.0)
    assert parse_settings([], {"TUNESMITH_PROOF_TOLERANCE": "0.2"}).proof_tolerance == 0.2


def test_unknown_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--token=x"], {})
    assert "unrecognized arguments" in capsys.readouterr().err
