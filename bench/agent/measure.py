"""How fast the agent is: one core, an engine that answers at once, every feature on; other proxies beside it.

The agent routes an alias with a stable version and a candidate at 50 % (so every request is hashed), counts,
and checks both versions as in a pod. Its client has a key, one of a thousand, and every kind of limit. It writes a
line of the access log on each request and a span on one of a hundred; further sides do without. It reaches the engine
at a socket in the file system, as in a pod; all others on a port. Its modules are compiled as in its image; a further
side is interpreted.

All sides run at the same time and are asked in turn, in rounds; figures are medians over the rounds. Then the memory
of the agent under load, and vLLM on CPUs with eight adapters with and without the agent. Writes
``bench/results/agent.json``. Needs wrk and Go, and two cores: one for whoever is measured, one for engine and load.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from load import load, load_steadily, make_vegeta
from real_engine import measure_engine
from sides import KEY, LOAD_CORE, Side, Sides, cpu_seconds, python_version, resident_mib
from soak import soak

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results/agent.json"
CONNECTIONS = (16, 1)
#: Requests per second at which latencies are compared.
RATES = (1000, 100)
WARM_SECONDS = 2
#: Requests per second at which only sides are asked that can answer half as many more.
MARGIN = 1.5


def measure_stream(side: Side, seconds: float) -> dict[str, float]:
    """Latency and processor time of each token of a stream."""
    before = cpu_seconds(side.pid)
    script = str(Path(__file__).with_name("streams.py"))
    command = ["taskset", "-c", LOAD_CORE, sys.executable, script, side.url, side.model, KEY, str(seconds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(side.pid) - before
    figures: dict[str, float] = json.loads(output)
    return {**figures, "processorMicrosecondsPerToken": round(1e6 * used / figures["tokens"], 1)}


def measure_pieces(side: Side, seconds: float, pieces: int) -> dict[str, float]:
    """Processor time of a request that its client writes in so many pieces, on one connection."""
    before = cpu_seconds(side.pid)
    script = str(Path(__file__).with_name("pieces.py"))
    command = [
        "taskset",
        "-c",
        LOAD_CORE,
        sys.executable,
        script,
        side.url,
        side.model,
        KEY,
        str(seconds),
        str(pieces),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(side.pid) - before
    return {"processorMicrosecondsPerRequest": round(1e6 * used / json.loads(output)["answers"], 1)}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure."""
    return {name: round(statistics.median(one[name] for one in rounds), 4) for name in rounds[0]}


def measure_sides(
    sides: Sequence[Side], rounds: int, measure: Callable[[Side], dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Figures of each side, asked in turn in each round."""
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side.name].append(measure(side))
            print(f"{side.name}: {found[side.name][-1]}", file=sys.stderr)
    return {name: medians(each) for name, each in found.items()}


def compare(stack: ExitStack, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All sides, and the agent's memory."""
    vegeta = make_vegeta()
    started = Sides(stack, folder)
    engine, agent = started.start_engine(), started.start_agent("agent")
    plain = [
        started.start_agent("agent, interpreted", is_compiled=False),
        started.start_agent("agent with an engine on a port", by_socket=False),
        started.start_agent("agent without log and traces", writes=False),
        started.start_agent("agent without log, traces and keys", writes=False, has_keys=False),
    ]
    others = [started.start_router(), started.start_litellm()] if options.others else []
    compared = [engine, agent, *others]
    seconds, rounds = options.seconds, options.rounds
    figures: dict[str, dict[str, Any]] = {side.name: {} for side in (engine, agent, *plain, *others)}

    def keep(part: str, found: dict[str, dict[str, float]]) -> None:
        for name, each in found.items():
            figures[name][part] = each

    for side in (engine, agent, *plain, *others):
        load(side, CONNECTIONS[0], WARM_SECONDS, folder)
    for count in CONNECTIONS:

        def as_much_as_it_answers(side: Side, count: int = count) -> dict[str, float]:
            return load(side, count, seconds, folder)

        keep(
            f"connections{count}",
            measure_sides([engine, agent, *plain, *others], rounds, as_much_as_it_answers),
        )
    for rate in RATES:
        able = [
            side
            for side in compared
            if figures[side.name]["connections16"]["requestsPerSecond"] > MARGIN * rate
        ]

        def steadily(side: Side, rate: int = rate) -> dict[str, float]:
            return load_steadily(vegeta, side, rate, seconds, folder)

        keep(f"rate{rate}", measure_sides(able, rounds, steadily))
    for pieces in (1, 2):

        def in_pieces(side: Side, pieces: int = pieces) -> dict[str, float]:
            return measure_pieces(side, seconds, pieces)

        keep(f"pieces{pieces}", measure_sides([agent], rounds, in_pieces))
    keep("stream", measure_sides(compared, rounds, lambda side: measure_stream(side, seconds)))
    for side in (engine, agent, *plain, *others):
        figures[side.name]["residentMiB"] = resident_mib(side.pid)
    return {"sides": figures, "soak": soak(agent, options.soak_seconds, folder, options.soak_rate)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--without-others", dest="others", action="store_false", help="leave vllm-router and LiteLLM out"
    )
    parser.add_argument("--without-engine", action="store_true", help="leave vLLM out")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement; wrk takes whole ones")
    parser.add_argument("--rounds", type=int, default=3, help="in which all sides are measured in turn")
    parser.add_argument(
        "--soak-seconds", type=int, default=180, help="of load for the memory; 3600 for an hour"
    )
    parser.add_argument(
        "--soak-rate", type=int, default=0, help="most requests a second of it; 0 has no bound"
    )
    parser.add_argument("--engine-seconds", type=float, default=10.0, help="of each measurement with vLLM")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench/agent/measure.py needs wrk: apt-get install wrk")
    results: dict[str, Any] = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "python": python_version(),
        "cores": os.cpu_count(),
        "loadAverageBefore": round(os.getloadavg()[0], 2),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results.update(compare(stack, folder, options))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    if not options.without_engine:
        results["engine"] = measure_engine(options.engine_seconds, options.rounds)
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(options.output.read_text())


if __name__ == "__main__":
    main()
