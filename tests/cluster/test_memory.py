"""Memory that a job takes once it has ended: ten thousand of them have to fit beside the rest."""

from typing import Any

from api_server.fake_api import FakeApi
from simulation.finished_jobs import FinishedJobs, kept_bytes
from simulation.serving_world import ENVIRONMENT

from tunesmith.cluster.controller import Controller
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.index import WATCHED_KINDS
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.process.registry import RECONCILERS

#: Ten thousand jobs take 45 MB; before they were stripped and packed it was 1.2 GB, and 100 MB without dictionaries.
MOST_BYTES = 6_000


def listed(jobs: FinishedJobs, numbers: range) -> Any:
    """An operator that has listed these jobs and their children, as at its start."""
    api: Any = FakeApi()
    controller = Controller(api, RECONCILERS, EventRecorder(api, Metrics(), "pod"), Metrics(), ENVIRONMENT)
    listings = {}
    for kind in WATCHED_KINDS:
        api.index.follow(*kind, lambda: True)
        listings[kind] = api.index.begin_list(*kind, None)
    for number in numbers:
        controller.handle_event(None, jobs.job(number))
        for body in jobs.children(number):
            listings[body["apiVersion"], body["kind"]].add([body], 1)
    for listing in listings.values():
        listing.end()
    controller.queue.close()
    return controller


async def test_a_job_that_has_ended_takes_little_memory() -> None:
    assert kept_bytes(200, listed) < MOST_BYTES
