"""How fast the agent is: one core, an engine that answers at once, every feature on; vllm-router beside it.

The agent routes an alias with a stable version and a candidate at 50 % (so every request is hashed), counts,
and checks both versions as in a pod. Its client has a key, one of a thousand, and every kind of limit. It writes a
line of the access log on each request and a span on one of a hundred; further sides do without. Writes
``bench/results/agent.json``. Needs wrk, and two cores: one for whoever is measured, one for engine and load.
"""

import argparse
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agents.agent_harness import Storage

from tunesmith_contract.agent import DesiredAlias, DesiredState
from tunesmith_images.venvs import make_environment

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results/agent.json"
LOAD_CORE, MEASURED_CORE = "0", "1"
CONNECTIONS = (16, 1)
ALIAS = "expenses"
KEY = "sk-0123456789abcdef"
#: A client with every kind of limit.
CLIENT = {
    "key": KEY,
    "adapters": [ALIAS],
    "requestsPerMinute": 10**9,
    "tokensPerMinute": 10**12,
    "budget": {"tokens": 10**15, "period": "Month"},
}

#: A request as a small application sends it; each of 1,000 users in turn.
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
local n = 0
function request()
  n = (n + 1) %% 1000
  return wrk.format(nil, "/v1/chat/completions", nil, '{"model":"%s","user":"user-' .. n .. '","messages":['
    .. '{"role":"system","content":"You turn receipts into JSON."},'
    .. '{"role":"user","content":"Lunch with a customer at the station, 23.50 EUR, on the 4th of May."}],'
    .. '"temperature":0,"max_tokens":64}')
end
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(core: str, command: list[str], url: str, log: Path, **environment: str) -> Iterator[int]:
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


def wait_until_answering(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
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


def load(url: str, model: str, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    """Requests per second and latencies in milliseconds, as wrk measures them."""
    script = folder / "post.lua"
    script.write_text(SCRIPT % (KEY, model))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(
        ["taskset", "-c", LOAD_CORE, *command], check=True, capture_output=True, text=True
    ).stdout
    if failed := re.search(r"Non-2xx.*|Socket errors.*", text):
        raise RuntimeError(f"{url}: {failed[0]}")
    quantiles = dict(re.findall(r"^ +(\d+)% +([\d.]+[mu]?s)$", text, re.MULTILINE))
    return {
        "requestsPerSecond": float(re.search(r"Requests/sec: +([\d.]+)", text)[1]),  # type: ignore[index]
        "p50Milliseconds": milliseconds(quantiles["50"]),
        "p99Milliseconds": milliseconds(quantiles["99"]),
    }


def milliseconds(text: str) -> float:
    """``1.2ms``, ``300us`` or ``2s`` as milliseconds."""
    number, unit = re.fullmatch(r"([\d.]+)([mu]?s)", text).groups()  # type: ignore[union-attr]
    return round(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], 4)


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def write_desired(folder: Path) -> None:
    """One alias in the middle of a rollout."""
    storage = Storage(folder / "mnt")
    stable, candidate = storage.commit(-1.0), storage.commit(-0.5)
    alias = DesiredAlias(name=ALIAS, stable=stable, candidate=candidate, weight=50)
    (folder / "desired.json").write_text(DesiredState(generation=1, aliases=(alias,)).to_json())


def write_keys(folder: Path) -> str:
    """A mounted Secret with a thousand keys; its folder."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / "bench").write_text(json.dumps(CLIENT))
    for number in range(124):
        other = {"keys": [f"sk-{number:04}-{key:08}" for key in range(8)]}
        (keys / f"client-{number}").write_text(json.dumps(other))
    return f"--keys-dir={keys}"


def agent_command(
    folder: Path, port: int, monitoring_port: int, engine_port: int, *, writes: bool
) -> list[str]:
    """The agent as a pod starts it, on other ports.

    Args:
        writes: an access log of all requests, and traces.
    """
    traces = f"--traces-endpoint=http://127.0.0.1:{engine_port}/v1/traces"
    telemetry = ["--access-logs=All", traces] if writes else ["--access-logs=None"]
    return [
        sys.executable, "-m", "tunesmith_agent",
        "--host=127.0.0.1", f"--port={port}", f"--monitoring-port={monitoring_port}",
        f"--engine-port={engine_port}", f"--mount-root={folder}/mnt", f"--desired-dir={folder}",
        f"--state-dir={folder}/state", f"--cache-dir={folder}/cache", "--lame-duck-seconds=0",
        *telemetry,
    ]  # fmt: skip


def router_command(router: str, port: int, engine_port: int) -> list[str]:
    """The Rust router with its defaults."""
    worker = f"http://127.0.0.1:{engine_port}"
    return [
        router, "--host", "127.0.0.1", "--port", str(port), "--worker-urls", worker,
        "--policy", "round_robin",
        "--log-level", "error", "--prometheus-port", str(free_port()),
    ]  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(url: str, model: str, pid: int, seconds: int, folder: Path) -> dict[str, Any]:
    """All numbers of one side; processor time per request depends little on what else runs beside it."""
    load(url, model, CONNECTIONS[0], 2, folder)
    result: dict[str, Any] = {}
    for count in CONNECTIONS:
        before = cpu_seconds(pid)
        figures = load(url, model, count, seconds, folder)
        used = cpu_seconds(pid) - before
        requests = figures["requestsPerSecond"] * seconds
        figures["processorMicrosecondsPerRequest"] = round(1e6 * used / requests, 1)
        result[f"connections{count}"] = figures
    return {**result, "residentMiB": resident_mib(pid)}


def bench(router: str | None, seconds: int) -> dict[str, Any]:
    """Backend alone, agent, router: one after the other on the same core."""
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine_port, port, monitoring_port = free_port(), free_port(), free_port()
        engine = f"http://127.0.0.1:{engine_port}"
        backend = [sys.executable, str(Path(__file__).with_name("instant_backend.py")), str(engine_port)]
        pid = stack.enter_context(running(LOAD_CORE, backend, f"{engine}/health", folder / "backend.log"))
        results["backend"] = measure(engine, "base", pid, seconds, folder)
        write_desired(folder)
        url = f"http://127.0.0.1:{port}"
        ready = f"http://127.0.0.1:{monitoring_port}/readyz"
        keys = write_keys(folder)
        sides: tuple[tuple[str, bool, list[str]], ...] = (
            ("agent", True, [keys]),
            ("agent without log and traces", False, [keys]),
            ("agent without log, traces and keys", False, []),
        )
        for name, writes, more in sides:
            command = agent_command(folder, port, monitoring_port, engine_port, writes=writes)
            with running(MEASURED_CORE, [*command, *more], ready, folder / "agent.log") as pid:
                results[name] = measure(url, ALIAS, pid, seconds, folder)
        if router:
            command = router_command(router, port, engine_port)
            with running(MEASURED_CORE, command, f"{url}/health", folder / "router.log") as pid:
                results["vllm-router"] = measure(url, "base", pid, seconds, folder)
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-router", action="store_true", help="leave vllm-router out")
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench/agent/measure.py needs wrk: apt-get install wrk")
    router = None if arguments.without_router else str(make_environment("router") / "bin/vllm-router")
    started = os.getloadavg()[0]
    results = {
        "sides": bench(router, arguments.seconds),
        "seconds": arguments.seconds,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "loadAverageBefore": round(started, 2),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
