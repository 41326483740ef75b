"""Observation of an AdapterDeployment: mostly from memory."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi
from simulation.serving_world import ENVIRONMENT, NAMESPACE, World, build_adapter

from tunesmith.cluster.controller import Controller
from tunesmith.cluster.observe_adapterdeployment import observe_adapterdeployment
from tunesmith.cluster.reconciler import Reader
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.index import WATCHED_KINDS
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.manifests.names import API_VERSION
from tunesmith.manifests.objects import Body
from tunesmith_contract.agent import AgentReport

ADAPTER = build_adapter("one", source={"fineTuneJobRef": {"name": "tune"}})


def body_of(kind: str, name: str, namespace: str = NAMESPACE, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}


class Setting:
    """An AdapterDeployment whose children exist, and the memory of an operator that watches all of them."""

    def __init__(self, indexed: bool) -> None:
        world = World(ADAPTER)
        world.reconcile()
        self.resource = world.resource
        self.api = FakeApi()
        self.client = cast(Client, self.api)
        if indexed:
            for api_version, kind in WATCHED_KINDS:
                self.api.index.follow(api_version, kind, lambda: True)
        for manifest in world.objects.values():
            self.add(manifest)
        deployment = world.objects["Deployment", "assistants-0f3c9d-serving"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for name, stage in (("pod-0", "serving"), ("other", "prepare")):
            metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}"}
            own = {"labels": labels | {"tunesmith.dev/stage": stage}}
            self.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata | own})
        self.controller = Controller(
            self.client, [], EventRecorder(self.client, Metrics(), "pod"), Metrics(), ENVIRONMENT
        )

    def add(self, manifest: Body) -> None:
        body = self.api.add(manifest)
        self.api.index.put(body["apiVersion"], body["kind"], body)

    @property
    def reader(self) -> Reader:
        return Reader(self.client, self.controller.bodies, self.controller.live)


@pytest.mark.parametrize("indexed", [True, False])
async def test_children_jobs_verdicts_and_agents_of_its_own_are_observed(indexed: bool) -> None:
    setting = Setting(indexed)
    bodies, live, uid = setting.controller.bodies, setting.controller.live, setting.resource.metadata.uid
    for body in (
        body_of("FineTuneJob", "tune", phase="Training"),
        body_of("FineTuneJob", "other"),
        body_of("EvalRun", "judged", verdict="Pass"),
        body_of("EvalRun", "running", phase="Running"),
        body_of("EvalRun", "elsewhere", namespace="elsewhere", verdict="Pass"),
    ):
        bodies.put(body)
    for pod_uid in ("uid-pod-0", "uid-gone"):
        report = AgentReport(
            pod_name=pod_uid, pod_uid=pod_uid, boot_id="1", engine_ready=True, applied_generation=1
        )
        live.agents.report(uid, report, datetime.now(UTC))
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert len(observed.config_maps) == 2
    assert [pod["metadata"]["name"] for pod in observed.pods] == ["pod-0"]
    assert [agent.report.pod_uid for agent in observed.agents] == ["uid-pod-0"]
    assert observed.jobs == {"tune": bodies.of_kind("FineTuneJob")[0]}
    assert [run["metadata"]["name"] for run in observed.eval_runs] == ["judged"]
    assert observed.deployment is not None
    assert observed.service is not None
    assert observed.disruption_budget is not None
    if indexed:
        assert setting.api.calls == []


async def test_a_job_that_is_not_there_is_observed_as_missing() -> None:
    setting = Setting(indexed=True)
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert observed.jobs == {"tune": None}


async def test_a_service_of_another_owner_is_read_by_its_name() -> None:
    setting = Setting(indexed=True)
    own = setting.api.objects["Service", NAMESPACE, "assistants"]
    setting.api.index.drop("v1", "Service", own)
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "assistants", "namespace": NAMESPACE},
    }
    setting.api.add(foreign)
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert observed.service is not None
    assert "ownerReferences" not in observed.service["metadata"]
    assert setting.api.calls == [("get", "Service")]
