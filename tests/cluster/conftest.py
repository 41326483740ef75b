"""Fixtures of the tests of what is read from the API server."""

from typing import Any

import pytest
from api_server.fake_api import FakeApi
from simulation.serving_world import ENVIRONMENT

from tunesmith.cluster.controller import Controller
from tunesmith.cluster.reconciler import Reader
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.index import WATCHED_KINDS
from tunesmith.controller_runtime.metrics import Metrics


@pytest.fixture
def api() -> Any:
    """An API server whose children are all indexed."""
    api = FakeApi()
    for api_version, kind in WATCHED_KINDS:
        api.index.follow(api_version, kind, lambda: True)
    return api


@pytest.fixture
async def reader(api: Any) -> Reader:
    """Reader of observed state, from the memory of a controller."""
    recorder = EventRecorder(api, Metrics(), "pod")
    controller = Controller(api, [], recorder, Metrics(), ENVIRONMENT)
    return Reader(api, controller.bodies, controller.live)
