"""What is read for an AdapterDeployment, and whose change wakes it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fake_api import FakeApi
from serving_world import ENVIRONMENT, NAMESPACE, World, build_adapter

from tunesmith.api import AdapterDeployment
from tunesmith.cluster.controller import Controller
from tunesmith.cluster.observe_adapterdeployment import dependents, observe_adapterdeployment
from tunesmith.cluster.reconciler import Reconciler
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Plan
from tunesmith.manifests.names import API_VERSION
from tunesmith_contract.agent import AgentReport

ADAPTER = build_adapter("one", source={"fineTuneJobRef": {"name": "tune"}})


def body_of(kind: str, name: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{name}"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}


def deployment_body(**metadata: str) -> dict[str, Any]:
    resource = World(ADAPTER).resource
    body = resource.to_dict() | {"apiVersion": API_VERSION}
    return body | {"metadata": body["metadata"] | metadata}


async def test_children_jobs_and_agents_of_its_own_are_read() -> None:
    world = World(ADAPTER)
    world.reconcile()
    api: Any = FakeApi()
    for manifest in world.objects.values():
        api.add(manifest)
    labels = world.objects["Deployment", "assistants-0f3c9d-serving"]["spec"]["template"]["metadata"][
        "labels"
    ]
    for name, stage in (("pod-0", "serving"), ("other", "prepare")):
        metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}"}
        own = {"labels": labels | {"tunesmith.dev/stage": stage}}
        api.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata | own})
    api.add(body_of("FineTuneJob", "tune", phase="Training"))
    controller = Controller(api, [], EventRecorder(api, Metrics(), "pod"), Metrics(), ENVIRONMENT)
    resource = world.resource
    for uid in ("uid-pod-0", "uid-gone"):
        report = AgentReport(pod_name=uid, pod_uid=uid, boot_id="1", engine_ready=True, applied_generation=1)
        controller.live.agents.report(resource.metadata.uid, report, datetime.now(UTC))
    observed = await observe_adapterdeployment(api, resource, controller.live, ENVIRONMENT)
    assert len(observed.config_maps) == 2
    assert [pod["metadata"]["name"] for pod in observed.pods] == ["pod-0"]
    assert [agent.report.pod_uid for agent in observed.agents] == ["uid-pod-0"]
    assert observed.jobs is not None
    assert observed.jobs["tune"] is not None
    assert observed.deployment is not None
    assert observed.service is not None
    assert observed.disruption_budget is not None


@pytest.mark.parametrize(
    ("body", "concerned"),
    [
        (body_of("FineTuneJob", "tune", artifact={"uri": "pvc://a/b"}), True),
        (body_of("FineTuneJob", "tune", phase="Failed"), True),
        (body_of("FineTuneJob", "tune", phase="Training"), False),
        (body_of("FineTuneJob", "another", artifact={"uri": "pvc://a/b"}), False),
        (body_of("EvalRun", "quality", verdict="Pass"), True),
        (body_of("EvalRun", "quality", phase="Running"), False),
    ],
)
def test_a_job_or_an_evaluation_that_ends_concerns_who_waits_for_it(
    body: dict[str, Any], concerned: bool
) -> None:
    here, elsewhere = deployment_body(), deployment_body(namespace="elsewhere")
    assert list(dependents(body, [elsewhere, here])) == ([here] if concerned else [])


async def test_who_waits_is_reconciled() -> None:
    api: Any = FakeApi()
    kind = Reconciler(
        "AdapterDeployment", AdapterDeployment.parse, observe_adapterdeployment, lambda *_: Plan(), dependents
    )
    controller = Controller(api, [kind], EventRecorder(api, Metrics(), "pod"), Metrics(), ENVIRONMENT)
    controller.seen("ADDED", api.add(deployment_body()))
    first = await controller.queue.get()
    controller.queue.done(first)
    controller.seen("MODIFIED", api.add(body_of("EvalRun", "quality", verdict="Pass")))
    assert {await controller.queue.get(), await controller.queue.get()} >= {first}
