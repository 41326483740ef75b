"""Tokens per second of vLLM on CPUs with eight adapters in mixed batches, through the agent and without it."""

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import TypeAdapter
from sides import agent_command, cpu_seconds, free_port, python_path, running

from tunesmith_contract.agent import DesiredAlias, DesiredState, Version, served_name
from tunesmith_images.compiled_agent import make_compiled_agent
from tunesmith_images.venvs import make_environment

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = 8
REQUESTS = 16
TOKENS = 64
WARM_SECONDS = 5.0
#: Engine, agent and load share all cores, as in a pod.
CORES = f"0-{(os.cpu_count() or 1) - 1}"

_ENGINE_ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1", "TORCH_COMPILE_DISABLE": "1", "PYTHONPATH": "",
}  # fmt: skip
#: One slot more than adapters: on CPUs the index of "no adapter" picks the last slot.
_ENGINE_ARGUMENTS = [
    "--served-model-name=base", "--enable-lora", f"--max-loras={ADAPTERS + 1}", "--max-cpu-loras=16",
    "--max-lora-rank=16", "--block-size=32", "--max-model-len=256", "--dtype=float32", "--enforce-eager",
    f"--max-num-seqs={REQUESTS}", "--host=127.0.0.1", "--disable-uvicorn-access-log",
]  # fmt: skip


def measure_engine(seconds: float, rounds: int) -> dict[str, Any]:
    """Medians over alternating rounds of so many seconds a side."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        versions = _make_versions(folder)
        engine_port, port, monitoring_port = free_port(), free_port(), free_port()
        engine = f"http://127.0.0.1:{engine_port}"
        command = [
            str(make_environment("engine") / "bin/python"), "-m", "vllm.entrypoints.openai.api_server",
            f"--model={folder}/model", f"--port={engine_port}", *_ENGINE_ARGUMENTS,
        ]  # fmt: skip
        stack.enter_context(
            running(
                CORES,
                command,
                f"{engine}/health",
                folder / "engine.log",
                HOME=str(folder),
                **_ENGINE_ENVIRONMENT,
            )
        )
        aliases = {f"adapter-{number}": version for number, version in enumerate(versions)}
        desired = [DesiredAlias(name=name, stable=version) for name, version in aliases.items()]
        (folder / "desired.json").write_text(DesiredState(generation=1, aliases=tuple(desired)).to_json())
        agent = agent_command(
            folder, folder, port, monitoring_port, f"--engine-port={engine_port}", "--access-logs=All"
        )
        ready = f"http://127.0.0.1:{monitoring_port}/readyz"
        pid = stack.enter_context(
            running(CORES, agent, ready, folder / "agent.log", PYTHONPATH=python_path(make_compiled_agent()))
        )
        names = {
            "without": (engine, [served_name(name, version.digest) for name, version in aliases.items()]),
            "through": (f"http://127.0.0.1:{port}", list(aliases)),
        }
        found: dict[str, list[float]] = {side: [] for side in names}
        agent_seconds = 0.0
        for number in range(rounds + 1):
            for side, (url, models) in names.items():
                before = cpu_seconds(pid)
                rate = asyncio.run(_tokens_per_second(url, models, seconds if number else WARM_SECONDS))
                if number:
                    found[side].append(round(rate, 1))
                    agent_seconds += cpu_seconds(pid) - before if side == "through" else 0.0
    medians = {side: statistics.median(rates) for side, rates in found.items()}
    return {
        "adapters": ADAPTERS,
        "requestsAtOnce": REQUESTS,
        "tokensOfAnswer": TOKENS,
        "tokensPerSecond": found,
        "median": medians,
        "ratio": round(medians["through"] / medians["without"], 3),
        "agentShareOfCore": round(agent_seconds / (rounds * seconds), 3),
    }


def _make_versions(folder: Path) -> list[Version]:
    python = make_environment("trainer") / "bin/python"
    script = Path(__file__).with_name("make_adapters.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/contract/src:{ROOT}/tests/support"}
    subprocess.run([python, script, folder, str(ADAPTERS)], check=True, env=environment)
    return TypeAdapter(list[Version]).validate_json((folder / "versions.json").read_bytes())


async def _tokens_per_second(url: str, models: list[str], seconds: float) -> float:
    """Tokens of all answers that came in time, by a fixed number of clients that ask for the adapters in turn."""
    turn, tokens = cycle(models), 0
    begun = time.monotonic()

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        while time.monotonic() < begun + seconds:
            body = {
                "model": next(turn),
                "messages": [{"role": "user", "content": "Item 5?"}],
                "temperature": 0,
                "max_tokens": TOKENS,
                "ignore_eos": True,
            }
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                document = await answer.json()
                if answer.status != 200:
                    raise RuntimeError(f"{url}: {document}")
                tokens += document["usage"]["completion_tokens"]

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(REQUESTS)))
    return tokens / (time.monotonic() - begun)
