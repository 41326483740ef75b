"""Settings, logs, health and the end of the process."""

import asyncio
import json
import logging
from typing import Any

import kopf
import pytest
from aiohttp.test_utils import TestClient, TestServer
from fake_api import FakeClock
from pydantic import ValidationError

from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.process.health import GRACE_SECONDS, Health
from tunesmith.process.logs import JsonFormatter
from tunesmith.process.run import main, run_until
from tunesmith.process.servers import build_plain_app
from tunesmith.process.settings import read_settings
from tunesmith.process.watching import (
    EndlessBackoffs,
    build_kopf_registry,
    build_kopf_settings,
    missing_watchers,
)

WATCHER = "watcher for finetunejobs.v1alpha1.tunesmith.dev@None"


def test_arguments_win_over_the_environment() -> None:
    environ = {"TUNESMITH_NAMESPACE": "a", "TUNESMITH_WATCH_NAMESPACES": "x,y", "TUNESMITH_WORKERS": "3"}
    settings = read_settings(["--namespace", "b"], environ)
    assert (settings.namespace, settings.watch_namespaces, settings.workers) == ("b", ("x", "y"), 3)
    assert settings.operator_url == "https://tunesmith.b.svc:8443"
    assert all(host.endswith(("b.svc", "b.svc.cluster.local")) for host in settings.hosts)


def test_a_setting_that_does_not_fit_ends_the_process_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValidationError):
        read_settings(["--workers", "many"], {})
    assert main(["--workers", "many"]) == 2
    assert "workers: Input should be a valid integer" in capsys.readouterr().err


def test_log_lines_carry_the_resource() -> None:
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "told %s", ("it",), None)
    record.resource = {"kind": "FineTuneJob", "name": "job"}
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["resource"]["name"]) == ("warning", "told it", "job")


def test_kopf_neither_scans_nor_posts_nor_gives_up() -> None:
    settings = build_kopf_settings()
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.queueing.worker_limit is None
    delays = [delay for delay, _ in zip(EndlessBackoffs(), range(2000), strict=False)]
    assert 0 < min(delays) < max(delays) <= 30
    registry = build_kopf_registry(["FineTuneJob", "EvalRun"], lambda kind, body: None)
    assert len(registry._watching.get_all_handlers()) == 2
    assert not [*registry._changing.get_all_handlers(), *registry._spawning.get_all_handlers()]
    assert isinstance(settings.persistence.diffbase_storage, kopf.DiffBaseStorage)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_watcher_that_died_fails_liveness_and_ends_the_process() -> None:
    clock = FakeClock()
    health = Health(Metrics(), clock)
    app = build_plain_app(Metrics(), health.liveness, health.readiness)
    watcher = asyncio.create_task(forever(), name=WATCHER)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/livez")).status == 200
        assert (await client.get("/readyz")).status == 503
        health.serving = True
        assert (await client.get("/readyz")).status == 200
        health.leading(("FineTuneJob",), (), ())
        assert (await client.get("/livez")).status == 200
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        response = await client.get("/livez")
        assert (response.status, await response.text()) == (503, f"{WATCHER} is gone")
        assert "tunesmith_leader" in await (await client.get("/metrics")).text()


async def test_watchers_that_never_come_are_missed_after_a_while() -> None:
    clock = FakeClock()
    health = Health(Metrics(), clock)
    health.leading(("EvalRun",), ("a", "b"), ())
    assert health.liveness() == []
    clock.advance(GRACE_SECONDS)
    assert len(health.liveness()) == 2


async def test_a_watcher_of_another_namespace_does_not_count() -> None:
    watcher = asyncio.create_task(forever(), name=WATCHER)
    assert missing_watchers(["FineTuneJob"], (), [watcher]) == set()
    assert missing_watchers(["FineTuneJob"], ("ns",), [watcher]) == {WATCHER.replace("None", "ns")}
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)


@pytest.mark.parametrize("by_signal", [True, False])
async def test_nothing_is_left_of_the_work(by_signal: bool) -> None:
    ended: list[str] = []

    async def part() -> Any:
        try:
            await forever()
        finally:
            ended.append("part")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(part())
            await asyncio.sleep(0)
            if not by_signal:
                raise RuntimeError("a part has ended")
            stop.set()
            await forever()

    stop = asyncio.Event()
    if by_signal:
        await run_until(stop, work())
    else:
        with pytest.raises(ExceptionGroup):
            await run_until(stop, work())
    assert ended == ["part"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
