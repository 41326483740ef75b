"""Metrics of GPU time: what counts, for how long, for whom, at which price."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from api_server.fake_api import FakeClock
from prometheus_client import CollectorRegistry

from tunesmith.cluster.gpu_time import GPUTime, Price, held_gpus
from tunesmith.controller_runtime.index import ChildIndex
from tunesmith.manifests.names import OWNER_UID_LABEL, QUEUE_LABEL
from tunesmith.process.settings import read_settings

GPU = "nvidia.com/gpu"
POD = ("v1", "Pod")


class World:
    """An index of pods, the resources that they belong to, and the metrics of their GPU time."""

    def __init__(self, labels: Sequence[str] = (), prices: Sequence[Price] = ()) -> None:
        self.clock = FakeClock()
        self.owners = {"job": build_owner({QUEUE_LABEL: "batch", "example.com/team": "a"})}
        self.time = GPUTime(self.owners.get, labels, prices, self.clock)
        self.registry = CollectorRegistry()
        self.registry.register(self.time)
        self.index = ChildIndex(lambda uid: None, on_pod=self.time.pod_changed)
        self.index.follow(*POD, lambda: True)
        self.version = 0

    def see(self, event: str, name: str, **members: Any) -> None:
        """An event of a watch."""
        self.version += 1
        self.index.handle_event(*POD, event, build_pod(name, self.version, **members))

    def value(self, metric: str, **labels: str) -> float:
        """Sum of a metric's series with these labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )


def build_owner(labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"kind": "FineTuneJob", "metadata": {"namespace": "team", "labels": labels}, "spec": spec}


def build_pod(
    name: str,
    version: int,
    gpus: dict[str, int] | None = None,
    started: bool = True,
    ended: bool = False,
    owner: str = "job",
) -> dict[str, Any]:
    now = "2026-01-01T00:00:00Z"
    state = (
        {"terminated": {"startedAt": now, "finishedAt": now, "exitCode": 0}}
        if ended
        else {"running": {"startedAt": now}}
    )
    limits = {name: str(count) for name, count in ({GPU: 4} if gpus is None else gpus).items()}
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {OWNER_UID_LABEL: owner},
        },
        "spec": {
            "containers": [
                {"name": "trainer", "resources": {"limits": {"cpu": "3500m", "memory": "1Gi"} | limits}}
            ]
        },
        "status": {"startTime": now, "containerStatuses": [{"name": "trainer", "state": state}]}
        if started
        else {},
    }


def test_a_pod_counts_from_its_start_to_its_end() -> None:
    world = World()
    world.see("ADDED", "a", started=False)
    world.clock.advance(100)
    world.see("MODIFIED", "a")
    world.clock.advance(10)
    assert (
        world.value("tunesmith_gpus", namespace="team", kind="FineTuneJob", queue="batch", resource=GPU) == 4
    )
    assert world.value("tunesmith_gpu_seconds_total") == 40
    world.clock.advance(5)
    world.see("MODIFIED", "a", ended=True)
    world.clock.advance(1000)
    world.see("DELETED", "a", ended=True)
    assert world.value("tunesmith_gpu_seconds_total") == 60
    assert world.value("tunesmith_gpus") == 0


def test_a_pod_that_is_removed_while_it_runs_counts_to_its_removal() -> None:
    world = World()
    world.see("ADDED", "a")
    world.clock.advance(30)
    world.see("DELETED", "a")
    world.clock.advance(30)
    assert world.value("tunesmith_gpu_seconds_total") == 120


@pytest.mark.parametrize("went_back", [False, True])
def test_a_pod_that_a_new_list_lacks_counts_to_that_list(went_back: bool) -> None:
    world = World()
    world.see("ADDED", "a")
    world.clock.advance(30)
    listing = world.index.begin_list(*POD, None, went_back=went_back)
    listing.add([], world.version + 1)
    listing.end()
    world.clock.advance(30)
    assert world.value("tunesmith_gpu_seconds_total") == 120


def test_pods_without_gpus_count_nothing() -> None:
    world = World()
    world.see("ADDED", "a", gpus={})
    world.clock.advance(30)
    assert world.value("tunesmith_gpu_seconds_total") == 0


def test_labels_of_the_owner_tell_whose_time_it_is() -> None:
    world = World(labels=("example.com/team", "cost-center"))
    world.see("ADDED", "a")
    world.clock.advance(1)
    assert world.value("tunesmith_gpu_seconds_total", label_example_com_team="a", label_cost_center="") == 4
    # A label that changes concerns the time from then on.
    world.owners["job"] = build_owner({"example.com/team": "b"})
    world.clock.advance(1)
    assert world.value("tunesmith_gpu_seconds_total", label_example_com_team="b") == 4
    assert world.value("tunesmith_gpu_seconds_total", label_example_com_team="a") == 4


def test_an_owner_that_is_deleted_is_still_charged_for_its_pods() -> None:
    world = World()
    world.see("ADDED", "a")
    world.clock.advance(1)
    world.value("tunesmith_gpus")
    del world.owners["job"]
    world.clock.advance(1)
    assert world.value("tunesmith_gpu_seconds_total", queue="batch") == 8


def test_cost_is_of_the_installation_or_of_the_job() -> None:
    prices = (Price(GPU, 3.6, "EUR"), Price("nvidia.com/mig-1g.10gb", 0.36, "EUR"))
    world = World(prices=prices)
    world.owners["dear"] = build_owner({}, budget={"pricePerGpuHour": "36", "currency": "USD"})
    world.see("ADDED", "a")
    world.see("ADDED", "slice", gpus={"nvidia.com/mig-1g.10gb": 1})
    world.see("ADDED", "dear", owner="dear", gpus={GPU: 1})
    world.see("ADDED", "unpriced", gpus={"amd.com/gpu": 8})
    world.clock.advance(1000)
    assert world.value("tunesmith_gpu_cost_total", currency="EUR", resource=GPU) == pytest.approx(4)
    assert world.value("tunesmith_gpu_cost_total", resource="nvidia.com/mig-1g.10gb") == pytest.approx(0.1)
    assert world.value("tunesmith_gpu_cost_total", currency="USD") == pytest.approx(10)
    assert world.value("tunesmith_gpu_seconds_total", resource="amd.com/gpu") == 8000
    assert world.value("tunesmith_gpu_cost_total", resource="amd.com/gpu") == 0


def test_what_is_a_gpu() -> None:
    limits = {
        "nvidia.com/mig-3g.40gb": "2",
        "nvidia.com/gpu.shared": "1",
        "rdma/hca": "8",
        "cpu": "1",
        "amd.com/gpu": "0",
    }
    sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"limits": {"gpu.intel.com/i915": "1"}}}
    init = {"name": "i", "resources": {"limits": {GPU: "1"}}}
    spec = {
        "containers": [{"name": "c", "resources": {"limits": limits}}, {"name": "bare"}],
        "initContainers": [init, sidecar],
    }
    assert held_gpus({"spec": spec}) == {
        "nvidia.com/mig-3g.40gb": 2,
        "nvidia.com/gpu.shared": 1,
        "gpu.intel.com/i915": 1,
    }


@pytest.mark.parametrize("seed", range(20))
def test_scrapes_at_any_time_change_nothing(seed: int) -> None:
    """The sum is that of all pods' times, whenever it is asked for."""
    chance, world, expected = random.Random(seed), World(), 0.0
    running: dict[str, int] = {}
    for number in range(200):
        seconds = chance.random() * 10
        world.clock.advance(seconds)
        expected += seconds * sum(running.values())
        if chance.random() < 0.3:
            assert world.value("tunesmith_gpus") == sum(running.values())
        if running and chance.random() < 0.4:
            name = chance.choice(sorted(running))
            world.see(chance.choice(["MODIFIED", "DELETED"]), name, gpus={GPU: running.pop(name)}, ended=True)
        else:
            running[f"pod{number}"] = chance.randint(1, 8)
            world.see("ADDED", f"pod{number}", gpus={GPU: running[f"pod{number}"]})
    assert world.value("tunesmith_gpu_seconds_total") == pytest.approx(expected)


def test_two_labels_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="label_cost_center"):
        read_settings([], {"TUNESMITH_METRICS_OWNER_LABELS": '["cost-center", "cost.center"]'})
