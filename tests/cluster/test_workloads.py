"""Kueue's Workloads are read once in half a minute, and at once where the operator has to change them."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from api_server.fake_api import FakeApi
from simulation.simulated_cluster import fine_tune_job

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.workloads import Workloads
from tunesmith.controller_runtime.client import Client
from tunesmith.decide.run.suspension import HELD_ANNOTATION

VERSION = "kueue.x-k8s.io/v1beta2"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
OWNER = FineTuneJob.parse(fine_tune_job()).metadata


def workload(message: str, held: bool = False) -> dict[str, Any]:
    conditions = [
        {"type": "QuotaReserved", "status": "False", "message": message},
        {"type": "Evicted", "status": "False"},
    ]
    metadata = {
        "namespace": "team",
        "name": "job-x",
        "annotations": {HELD_ANNOTATION: "true"} if held else {},
    }
    return {
        "apiVersion": VERSION,
        "kind": "Workload",
        "metadata": metadata,
        "spec": {"active": not held, "podSets": ["long"]},
        "status": {"conditions": conditions},
    }


class Setting:
    def __init__(self) -> None:
        self.api, self.workloads = FakeApi(), Workloads()

    async def observe(self, seconds: float = 0, suspend: bool = False, job: str = "uid-of-job") -> list[str]:
        client, now = cast(Client, self.api), NOW + timedelta(seconds=seconds)
        found = await self.workloads.observe(client, VERSION, OWNER, [job], suspend, now)
        return [each["status"]["conditions"][0]["message"] for each in found]

    @property
    def reads(self) -> int:
        return self.api.calls.count(("list", "Workload"))


async def test_what_waits_is_read_once_in_half_a_minute_and_kept_small() -> None:
    setting = Setting()
    setting.api.add(workload("first"))
    assert [await setting.observe(seconds) for seconds in (0, 29)] == [["first"], ["first"]]
    assert setting.reads == 1
    (kept,) = setting.workloads._reads[OWNER.uid].workloads
    assert (kept["spec"], len(kept["status"]["conditions"])) == ({"active": True}, 1)
    setting.api.add(workload("second"))
    assert [await setting.observe(seconds) for seconds in (29, 30)] == [["first"], ["second"]]
    await setting.observe(30, job="uid-of-the-next-attempt")
    assert setting.reads == 3
    setting.workloads.forget(OWNER.uid)
    assert not setting.workloads._reads


async def test_what_the_plan_has_to_change_is_read_each_time() -> None:
    setting = Setting()
    assert await setting.observe() == []
    assert await setting.observe(1, suspend=True) == []
    setting.api.add(workload("active"))
    for second in (2, 3):
        assert await setting.observe(second, suspend=True) == ["active"]
    setting.api.add(workload("held", held=True))
    for second in (4, 5):
        assert await setting.observe(second, suspend=True) == ["held"]
    assert setting.reads == 5
    assert await setting.observe(6, suspend=False) == ["held"]
    assert setting.reads == 6
