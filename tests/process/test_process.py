"""Settings, logs, health and the end of the process."""

import asyncio
import json
import logging
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from api_server.fake_api import FakeApi, FakeClock
from pydantic import ValidationError

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.lease import LeaderLease
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.manifests.outbound import CABundle, Outbound
from tunesmith.process.health import GRACE_SECONDS, Health
from tunesmith.process.logs import JsonFormatter
from tunesmith.process.run import Operator, main, run_until, wait_until_loaded
from tunesmith.process.servers import build_plain_app
from tunesmith.process.settings import read_settings
from tunesmith.process.watching import missing_watchers

WATCHER = "watcher for finetunejobs.v1alpha1.tunesmith.dev@None"


def test_arguments_win_over_the_environment() -> None:
    environ = {"TUNESMITH_NAMESPACE": "a", "TUNESMITH_WATCH_NAMESPACES": "x,y", "TUNESMITH_WORKERS": "3"}
    settings = read_settings(["--namespace", "b"], environ)
    assert (settings.namespace, settings.watch_namespaces, settings.workers) == ("b", ("x", "y"), 3)
    assert settings.operator_url == "https://tunesmith.b.svc:8443"
    assert all(host.endswith(("b.svc", "b.svc.cluster.local")) for host in settings.hosts)


def test_tolerations_are_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    written = '[{"key": "reserved", "operator": "Exists"}]'
    (toleration,) = read_settings([], {"TUNESMITH_GPU_TOLERATIONS": written}).gpu_tolerations
    assert toleration.to_dict() == {"key": "reserved", "operator": "Exists"}
    assert read_settings([], {"TUNESMITH_GPU_TOLERATIONS": ""}).gpu_tolerations == ()
    for wrong in ("[{", '[{"kye": "reserved"}]'):
        assert main(["--gpu-tolerations", wrong]) == 2
        assert "gpu_tolerations" in capsys.readouterr().err


def test_ratios_of_limits_are_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    written = '{"cpu": 4, "memory": 1.5}'
    ratios = read_settings([], {"TUNESMITH_LIMIT_REQUEST_RATIO": written}).limit_request_ratio
    assert ratios.to_rules().ratios == {"cpu": "4", "memory": "1.5"}
    assert (
        read_settings([], {"TUNESMITH_LIMIT_REQUEST_RATIO": ""}).limit_request_ratio.to_rules().ratios == {}
    )
    for wrong in ('{"cpu": 0.5}', '{"gpu": 2}'):
        assert main(["--limit-request-ratio", wrong]) == 2
        assert "limit_request_ratio" in capsys.readouterr().err


PROXY = {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}


def test_what_pods_need_outside_the_cluster_comes_from_four_settings() -> None:
    settings = read_settings(
        [],
        {
            "TUNESMITH_DEFAULT_ENV": json.dumps([PROXY, {"name": "NO_PROXY", "value": ".corp"}]),
            "TUNESMITH_CA_CONFIG_MAP": "trust",
            "TUNESMITH_CA_KEY": "roots.pem",
            "TUNESMITH_HF_ENDPOINT": "https://hub.corp",
        },
    )
    variables: dict[str, dict[str, Any]] = {
        "HTTPS_PROXY": {"valueFrom": PROXY["valueFrom"]},
        "NO_PROXY": {"value": ".corp"},
        "HF_ENDPOINT": {"value": "https://hub.corp"},
    }
    assert settings.outbound == Outbound(variables, CABundle("trust", "roots.pem"))
    assert read_settings([], {"TUNESMITH_DEFAULT_ENV": "[]"}).outbound == Outbound()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ({"name": "HTTPS_PROXY", "value": "http://me:secret@proxy:3128"}, "holds a password"),
        ({"name": "HF_TOKEN", "value": "hf_x"}, "holds a password"),
        ({"name": "NO_PROXY", **{"valueFrom": PROXY["valueFrom"]}}, "write its value"),
        ({"name": "TUNESMITH_ATTEMPT", "value": "7"}, "variable of the operator's own"),
        ({"name": "HTTPS_PROXY"}, "write either value or valueFrom"),
    ],
)
def test_a_default_variable_shows_no_password(
    variable: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--default-env", json.dumps([variable])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "secret@" not in error


@pytest.mark.parametrize(
    ("platform", "is_served", "expected"),
    [
        ("Auto", True, True),
        ("Auto", False, False),
        ("Kubernetes", True, False),
        ("OpenShift", False, True),
    ],
)
async def test_openshift_is_known_by_its_api(platform: str, is_served: bool, expected: bool) -> None:
    class Discovery:
        async def served_kinds(self, api_version: str) -> frozenset[str]:
            return frozenset()

        async def serves_group(self, group: str) -> bool:
            assert group == "security.openshift.io"
            return is_served

    operator = Operator(read_settings(["--platform", platform], {}), (), lambda: None)
    operator._client = cast(Client, Discovery())
    await operator._wait_for_api()
    assert operator._assigned_ids is expected


def test_a_setting_that_does_not_fit_ends_the_process_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValidationError):
        read_settings(["--workers", "many"], {})
    assert main(["--workers", "many"]) == 2
    assert "workers: Input should be a valid integer" in capsys.readouterr().err


def format_record(record: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return line


def test_log_lines_carry_time_level_logger_message_and_resource() -> None:
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "wrote %s", ("it",), None)
    record.created = 0.0626
    record.resource = {"kind": "FineTuneJob", "name": "job"}
    assert format_record(record) == {
        "time": "1970-01-01T00:00:00.062+00:00",
        "level": "warning",
        "logger": "n",
        "message": "wrote it",
        "resource": {"kind": "FineTuneJob", "name": "job"},
    }


def test_log_lines_carry_exceptions_but_not_what_kopf_adds() -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        record = logging.LogRecord("kopf", logging.ERROR, "f", 1, "failed", None, sys.exc_info())
    record.settings, record.k8s_ref, record.k8s_skip = object(), {"name": "job"}, True
    line = format_record(record)
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("KeyError: 'missing'")
    assert set(line) == {"time", "level", "logger", "message", "exception"}


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
        # kopf may just be starting anew.
        assert (await client.get("/livez")).status == 200
        clock.advance(GRACE_SECONDS)
        response = await client.get("/livez")
        assert (response.status, await response.text()) == (503, f"{WATCHER} has ended")
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

    async def drain() -> None:
        ended.append("drained")

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
        await run_until(stop, work(), drain)
    else:
        with pytest.raises(ExceptionGroup):
            await run_until(stop, work(), drain)
    assert ended == (["drained", "part"] if by_signal else ["part"])
    assert asyncio.all_tasks() == {asyncio.current_task()}


CLUSTER = ("--claim-namespace", "shared", "--namespace")


async def test_one_installation_of_a_name_acts_on_the_cluster() -> None:
    def claim(*arguments: str) -> LeaderLease | None:
        operator = Operator(read_settings(arguments, {}), (), lambda: None)
        operator._lease_client = api
        return operator._claim()

    api: Any = FakeApi()
    first, other, named = (
        claim(*CLUSTER, "a"),
        claim(*CLUSTER, "b"),
        claim(*CLUSTER, "b", "--controller-name", "x"),
    )
    assert first is not None
    assert other is not None
    assert named is not None
    await first.acquire()
    await named.acquire()
    successor = claim(*CLUSTER, "a")
    assert successor is not None
    await successor.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await other.acquire()
    leases = {name: body["spec"]["holderIdentity"] for (_, _, name), body in api.objects.items()}
    assert leases == {"tunesmith-controller": "a/tunesmith", "tunesmith-controller.x": "b/tunesmith"}
    assert claim("--namespace", "a") is None
    assert claim(*CLUSTER, "a", "--watch-namespaces", "c") is None


class SlowLists:
    """A client to which a page comes whenever somebody looks, and the last one after so many looks."""

    def __init__(self, pages: int) -> None:
        self.left = pages
        self.complete = asyncio.Event()

    @property
    def pages_read(self) -> int:
        self.left -= 1
        if self.left < 0:
            self.complete.set()
        return max(self.left, 0)


async def load_slowly(slow: SlowLists, load: Any) -> None:
    watches: Any = [SimpleNamespace(kind="ConfigMap", synced=slow.complete)]
    controller: Any = SimpleNamespace(load=load, reconcilers={"FineTuneJob": None})
    try:
        await wait_until_loaded(cast(Client, slow), watches, controller, 0.001)
    finally:
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_start_may_take_as_long_as_pages_come() -> None:
    """Thousands of jobs on a busy API server take minutes; an operator that gave up would begin again, for ever."""
    slow = SlowLists(5)
    await load_slowly(slow, slow.complete.wait)


async def test_a_start_without_any_page_ends_the_process() -> None:
    with pytest.raises(RuntimeError, match="can't list FineTuneJob: nothing has come"):
        await load_slowly(SlowLists(0), forever)
