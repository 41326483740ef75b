"""Load without streams: as much as a side answers, by wrk, and at a steady rate, by vegeta."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from sides import KEY, LOAD_CORE, Side, cpu_seconds

from tunesmith_cluster.binaries import find_go
from tunesmith_images.cache import cache_dir

VEGETA_VERSION = "v12.13.0"
#: Users that ask in turn.
USERS = 1000
PATH = "/v1/chat/completions"

#: A request as a small application sends it; each user in turn.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
local n = 0
function request()
  n = (n + 1) %% %d
  return wrk.format(nil, "%s", nil, (%s):gsub("USER", n))
end
"""


def request_body(model: str, user: str) -> dict[str, Any]:
    """A small question of one user."""
    return {
        "model": model,
        "user": user,
        "messages": [
            {"role": "system", "content": "You turn receipts into JSON."},
            {
                "role": "user",
                "content": "Lunch with a customer at the station, 23.50 EUR, on the 4th of May.",
            },
        ],
        "temperature": 0,
        "max_tokens": 64,
    }


def load(side: Side, connections: int, seconds: float, folder: Path) -> dict[str, float]:
    """Requests per second, latencies in milliseconds and processor time, each connection asking again at once."""
    script = folder / "post.lua"
    body = json.dumps(json.dumps(request_body(side.model, "user-USER")))
    script.write_text(_SCRIPT % (KEY, USERS, PATH, body))
    before = cpu_seconds(side.pid)
    figures = run_wrk(side.url, script, connections, seconds)
    used = cpu_seconds(side.pid) - before
    requests = figures["requestsPerSecond"] * seconds
    return {**figures, "processorMicrosecondsPerRequest": round(1e6 * used / requests, 1)}


def run_wrk(url: str, script: Path, connections: int, seconds: float) -> dict[str, float]:
    """Figures of wrk.

    Raises:
        RuntimeError: an answer was an error, or there was none.
    """
    command = [
        "taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s",
        "--latency", "-s", str(script), url,
    ]  # fmt: skip
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if failed := re.search(r"Non-2xx.*|Socket errors.*", text):
        raise RuntimeError(f"{url}: {failed[0]}")
    quantiles = dict(re.findall(r"^ +(\d+)% +([\d.]+[mu]?s) *$", text, re.MULTILINE))
    if "99" not in quantiles:
        raise RuntimeError(f"{url} answered too little to tell latencies: {text}")
    return {
        "requestsPerSecond": float(re.search(r"Requests/sec: +([\d.]+)", text)[1]),  # type: ignore[index]
        "p50Milliseconds": _milliseconds(quantiles["50"]),
        "p99Milliseconds": _milliseconds(quantiles["99"]),
    }


def _milliseconds(text: str) -> float:
    """``1.2ms``, ``300us`` or ``2s`` as milliseconds."""
    number, unit = re.fullmatch(r"([\d.]+)([mu]?s)", text).groups()  # type: ignore[union-attr]
    return round(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], 4)


def make_vegeta() -> Path:
    """The program vegeta, built from its pinned Go module unless that was done before."""
    program = cache_dir() / "bin" / f"vegeta-{VEGETA_VERSION}" / "vegeta"
    if not program.exists():
        environment = {**os.environ, "GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        module = f"github.com/tsenart/vegeta/v12@{VEGETA_VERSION}"
        subprocess.run([find_go(), "install", module], check=True, env=environment)
    return program


def load_steadily(vegeta: Path, side: Side, rate: int, seconds: float, folder: Path) -> dict[str, float]:
    """Latencies in milliseconds of requests that begin at a steady rate, whatever became of earlier ones."""
    targets = folder / "targets.json"
    lines = [json.dumps(_target(side, f"user-{number}")) for number in range(USERS)]
    targets.write_text("\n".join(lines))
    before = cpu_seconds(side.pid)
    attack = [
        "taskset", "-c", LOAD_CORE, str(vegeta), "attack", "-format=json", f"-targets={targets}", f"-rate={rate}",
        f"-duration={seconds:g}s", "-timeout=10s",
    ]  # fmt: skip
    results = subprocess.run(attack, check=True, capture_output=True).stdout
    used = cpu_seconds(side.pid) - before
    report = subprocess.run(
        [str(vegeta), "report", "-type=json"], input=results, check=True, capture_output=True
    )
    found = json.loads(report.stdout)
    return {
        "requestsPerSecond": round(found["throughput"], 1),
        "answered": found["success"],
        "p50Milliseconds": round(found["latencies"]["50th"] / 1e6, 4),
        "p99Milliseconds": round(found["latencies"]["99th"] / 1e6, 4),
        "maxMilliseconds": round(found["latencies"]["max"] / 1e6, 4),
        "processorMicrosecondsPerRequest": round(1e6 * used / found["requests"], 1),
    }


def _target(side: Side, user: str) -> dict[str, Any]:
    body = json.dumps(request_body(side.model, user)).encode()
    header = {"content-type": ["application/json"], "authorization": [f"Bearer {KEY}"]}
    return {
        "method": "POST",
        "url": side.url + PATH,
        "header": header,
        "body": base64.b64encode(body).decode(),
    }
