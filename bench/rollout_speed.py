"""How soon a version is proven in three pods, and how soon one that is taken back answers nobody any more.

Starts a control plane and the operator of its own, and three pods as processes: real agents in front of stand-in
engines. Clients ask at a steady rate. Each version is released, and aborted as soon as it has weight.

    python bench/rollout_speed.py --output bench/results/rollouts.json
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from control_plane.served_jobs import install_crds
from rollouts.figures import describe
from rollouts.rollout_world import Shape as WorldShape
from rollouts.rollout_world import rollout_world

from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.fake import ControlPlane

RESULTS = Path(__file__).resolve().parents[1] / "bench/results/rollouts.json"


async def measure(server: ControlPlane, folder: Path, releases: int, rate: float) -> dict[str, Any]:
    """Figures of so many releases."""
    before = os.getloadavg()[0]
    shape = WorldShape(aliases=("expenses",), rate=rate)
    async with rollout_world(server, folder, seed=0, shape=shape) as world:
        for _ in range(releases):
            await world.release(abort=True)
    figures = describe(world)
    return {
        "releases": releases,
        "pods": shape.replicas,
        "requestsPerSecond": rate,
        "requests": figures["requests"],
        "namedToProven": figures["namedToProvenMilliseconds"],
        "decidedToLastAnswer": figures["decidedToLastAnswerMilliseconds"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "loadAverageBefore": round(before, 1),
    }


def main() -> None:
    """Measure on a control plane of its own; print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as folder:
        cluster = Cluster(Shape.CONTROL_PLANE, Path(folder) / "cluster", bound=True)
        cluster.up()
        try:
            server = ControlPlane(cluster.kubeconfig)
            server.add_node("gpu-0")
            install_crds(server)
            result = asyncio.run(measure(server, Path(folder), options.releases, options.rate))
        finally:
            cluster.down()
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
