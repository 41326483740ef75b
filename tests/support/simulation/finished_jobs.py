"""Many FineTuneJobs that have ended, as an API server lists them, and what the operator keeps of them."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import orjson
from simulation.simulated_cluster import UID
from simulation.training_world import training

from tunesmith.manifests.names import API_VERSION
from tunesmith.manifests.objects import Body


class FinishedJobs:
    """Copies of one job that has trained, each with its children, under names and UIDs of their own."""

    def __init__(self) -> None:
        world = training()
        world.succeed("train")
        world.reconcile()
        world.resource["metadata"]["resourceVersion"] = "1"
        self.status: Body = world.status
        children = [
            body | {"metadata": body["metadata"] | {"resourceVersion": "1"}}
            for body in world.objects.values()
        ]
        self._job = orjson.dumps(world.resource | {"apiVersion": API_VERSION}).decode()
        self._children = [orjson.dumps(body).decode() for body in children]

    def job(self, number: int) -> Body:
        """The job of a number."""
        return self._numbered(self._job, number)

    def children(self, number: int) -> Iterator[Body]:
        """Its ConfigMaps, Jobs and pods."""
        for text in self._children:
            yield self._numbered(text, number)

    def _numbered(self, text: str, number: int) -> Body:
        uid = f"{number:06x}{UID[6:]}"
        numbered = (
            text.replace(UID, uid).replace("expenses", f"expenses-{number}").replace("uid-", f"{number}-uid-")
        )
        body: Body = orjson.loads(numbered)
        return body


def kept_bytes(number: int, keep: Callable[[FinishedJobs, range], object]) -> float:
    """Bytes per job that stay in memory after ``keep`` was called with so many jobs.

    A first, small round is not counted: imports and caches belong to no job.
    """
    jobs = FinishedJobs()
    keep(jobs, range(number, number + 10))
    gc.collect()
    tracemalloc.start()
    try:
        kept = keep(jobs, range(number))
        gc.collect()
        total, _ = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return total / number
