"""Repetitions of an event only raise its count; a full queue drops events."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from api_server.fake_api import FakeApi, FakeClock, until

from tunesmith.controller_runtime.errors import Refused
from tunesmith.controller_runtime.events import MAX_NOTE, QUEUE, REPEAT_SECONDS, EventRecorder, build_event
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Event

BODY: dict[str, Any] = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"namespace": "ns", "name": "job", "uid": "u", "resourceVersion": "1"},
}


def published(api: FakeApi) -> list[tuple[str, int]]:
    events = [body for key, body in api.objects.items() if key[0] == "Event"]
    return sorted((event["note"], event.get("series", {}).get("count", 1)) for event in events)


async def test_repetitions_are_counted_also_by_a_successor() -> None:
    api: Any = FakeApi()
    clock = FakeClock()
    recorder = EventRecorder(api, Metrics(), "pod", clock)
    for message in ("a", "a", "b", "a"):
        recorder.record(BODY, Event("Reason", message))
    await recorder.flush(1)
    assert published(api) == [("a", 1), ("b", 1)]
    clock.advance(REPEAT_SECONDS)
    recorder.record(BODY, Event("Reason", "a"))
    await recorder.flush(1)
    assert published(api) == [("a", 4), ("b", 1)]
    successor = EventRecorder(api, Metrics(), "other", clock)
    successor.record(BODY, Event("Reason", "b"))
    await successor.flush(1)
    assert published(api) == [("a", 4), ("b", 2)]


async def test_an_event_that_the_server_forgot_is_made_again() -> None:
    api: Any = FakeApi()
    clock = FakeClock()
    recorder = EventRecorder(api, Metrics(), "pod", clock)
    recorder.record(BODY, Event("Reason", "a"))
    await recorder.flush(1)
    api.objects.clear()
    clock.advance(REPEAT_SECONDS)
    recorder.record(BODY, Event("Reason", "a"))
    await recorder.flush(1)
    assert published(api) == [("a", 1)]


async def test_what_does_not_fit_is_dropped() -> None:
    api: Any = FakeApi()
    metrics = Metrics()
    recorder = EventRecorder(api, metrics, "pod")
    for number in range(QUEUE + 3):
        recorder.record(BODY, Event("Reason", str(number)))
    assert metrics.registry.get_sample_value("tunesmith_events_dropped_total") == 3
    api.failures["create", "Event"] = [Refused("namespace is being terminated", 403)]
    await recorder.flush(5)


def test_a_long_note_is_cut_between_characters() -> None:
    event = build_event(BODY, Event("Reason", "a" + "é" * 1024), "name", "pod", datetime.now(UTC))
    assert event["note"] == "a" + "é" * 511
    assert len(event["note"].encode()) <= MAX_NOTE


async def test_an_odd_event_is_dropped_and_the_next_one_published() -> None:
    class OddApi(FakeApi):
        async def create(self, manifest: Any) -> Any:
            if manifest["note"] == "odd":
                raise TypeError("not serializable")
            return await super().create(manifest)

    api: Any = OddApi()
    metrics = Metrics()
    recorder = EventRecorder(api, metrics, "pod")
    publishing = asyncio.create_task(recorder.run())
    for message in ("odd", "well"):
        recorder.record(BODY, Event("Reason", message))
    await until(lambda: published(api) == [("well", 1)])
    assert metrics.registry.get_sample_value("tunesmith_events_dropped_total") == 1
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
