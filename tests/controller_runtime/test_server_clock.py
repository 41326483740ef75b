"""The API server's clock counts where it differs from that of the operator's node."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from api_server.api_connections import connection_to, serving

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.index import ChildIndex
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.server_clock import COMPARE_SECONDS, ServerClock

START = datetime(2030, 1, 1, tzinfo=UTC)


class Clocks:
    """A node's clock that may be off, and the API server's."""

    def __init__(self, off: float) -> None:
        self.seconds = 0.0
        self.off = off
        self.clock = ServerClock(lambda: self.true + timedelta(seconds=self.off), lambda: self.seconds)

    @property
    def true(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def answer(self, took: float = 0.01) -> None:
        """An answer of the API server, with its time at the beginning of the second."""
        self.clock.learn(format_datetime(self.true.replace(microsecond=0), usegmt=True), took)

    @property
    def error(self) -> float:
        """Seconds by which the time is off."""
        return (self.clock.now() - self.true).total_seconds()


@pytest.mark.parametrize("off", [600.0, -600.0, 86_400.0, -3.5])
def test_a_clock_that_is_off_is_corrected(off: float) -> None:
    clocks = Clocks(off)
    assert clocks.error == off
    clocks.answer()
    assert abs(clocks.error) <= 1


@pytest.mark.parametrize("off", [0.0, 1.2, -1.2])
def test_clocks_that_agree_are_left_alone(off: float) -> None:
    clocks = Clocks(off)
    for _ in range(10):
        clocks.seconds += COMPARE_SECONDS + 0.37
        clocks.answer()
        assert clocks.error == pytest.approx(off)


def test_the_corrected_time_does_not_jitter() -> None:
    clocks = Clocks(600)
    clocks.answer()
    first = clocks.error
    for _ in range(20):
        clocks.seconds += COMPARE_SECONDS + 0.37
        clocks.answer()
        assert clocks.error == pytest.approx(first)


def test_a_clock_that_is_set_right_is_believed_again() -> None:
    clocks = Clocks(600)
    clocks.answer()
    clocks.off = 0
    assert clocks.error < -500
    clocks.seconds += COMPARE_SECONDS
    clocks.answer()
    assert clocks.error == 0


def test_slow_and_odd_answers_tell_nothing() -> None:
    clocks = Clocks(600)
    clocks.answer(took=30)
    clocks.clock.learn(None, 0.01)
    clocks.clock.learn("yesterday", 0.01)
    assert clocks.error == 600
    clocks.answer()
    assert abs(clocks.error) <= 1


@pytest.mark.parametrize("off", [600.0, -600.0])
async def test_the_client_learns_it_from_answers(off: float) -> None:
    async def answer(request: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)
        return web.json_response({}, headers={"Date": date})

    async with (
        serving(answer) as url,
        Client(connection_to(url), Metrics(), ChildIndex(lambda uid: None)) as client,
    ):
        await client.get("v1", "Pod", "ns", "a")
        assert abs((client.clock.now() - datetime.now(UTC)).total_seconds() - off) <= 2
