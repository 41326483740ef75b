"""Observation of an AdapterDeployment: mostly from memory."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi
from simulation.run_objects import build_record
from simulation.serving_world import ENVIRONMENT, NAMESPACE, World, build_adapter
from training_memory.published_memory import LLAMA_3_1_8B

from tunesmith.api import AdapterDeployment, FineTuneJob
from tunesmith.api.adapterdeployment import Engine
from tunesmith.api.common import Condition
from tunesmith.cluster.controller import Controller
from tunesmith.cluster.observe_adapterdeployment import observe_adapterdeployment
from tunesmith.cluster.reconciler import Reader
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.index import WATCHED_KINDS
from tunesmith.controller_runtime.kept import Packed
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.serving.pods.engine_memory import find_base_model
from tunesmith.manifests.names import API_VERSION, OWNER_UID_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import RECORD_KEY, AttemptOutcome, build_result_config_map
from tunesmith.manifests.verdict_records import VerdictRecord, build_verdicts, verdicts_name
from tunesmith_contract.agent import AgentReport
from tunesmith_contract.report import Outcome, RunReport
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_contract.stages import Stage

ADAPTER = build_adapter("one", source={"fineTuneJobRef": {"name": "tune"}})


def body_of(kind: str, name: str, namespace: str = NAMESPACE, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}


def record_of(owner: str, digest: str) -> dict[str, Any]:
    """A ConfigMap that belongs to the resource with this UID, and names a candidate."""
    name = f"record-{owner}"
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-of-{name}",
        "labels": {OWNER_UID_LABEL: owner},
        "ownerReferences": [{"uid": owner}],
    }
    data = {RECORD_KEY: f'{{"candidate":"{digest}"}}'}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


VERDICT = VerdictRecord(
    uid="u", name="judged", policy_digest="p", verdict=Verdict.PASS, ended_at=datetime(2030, 1, 1, tzinfo=UTC)
)
MADE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


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
        body_of("FineTuneJob", "tune", phase="Training", artifact={"digest": MADE}),
        body_of("FineTuneJob", "other"),
        body_of("EvalRun", "judged", verdict="Pass", candidate={"digest": MADE}),
        body_of("EvalRun", "of-another-artifact", verdict="Pass", candidate={"digest": OTHER}),
        body_of("EvalRun", "hidden", verdict="Pass", candidate={"digest": OTHER}),
        body_of("EvalRun", "running", phase="Running"),
        body_of("EvalRun", "elsewhere", namespace="elsewhere", verdict="Pass"),
    ):
        bodies.put(body)
    for pod_uid in ("uid-pod-0", "uid-gone"):
        report = AgentReport(
            pod_name=pod_uid, pod_uid=pod_uid, boot_id="1", engine_ready=True, applied_generation=1
        )
        live.agents.report(uid, report, datetime.now(UTC))
    setting.add(record_of("uid-of-judged", MADE))
    setting.add(record_of("uid-of-hidden", MADE))
    setting.add(record_of("uid-of-of-another-artifact", OTHER))
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert len(observed.config_maps) == 3
    assert observed.history is not None
    assert [pod["metadata"]["name"] for pod in observed.pods] == ["pod-0"]
    assert [(agent.report.pod_uid, agent.ended) for agent in observed.agents] == [
        ("uid-gone", True),
        ("uid-pod-0", False),
    ]
    assert observed.jobs == {"tune": bodies.of_kind("FineTuneJob")[0]}
    # A status that names another candidate hides no run.
    assert {
        run.body["metadata"]["name"]: [found["metadata"]["name"] for found in run.config_maps]
        for run in observed.eval_runs
    } == {"judged": ["record-uid-of-judged"], "hidden": ["record-uid-of-hidden"]}
    assert len(observed.deployments) == 1
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


def on_gpus(setting: Setting) -> AdapterDeployment:
    spec = setting.resource.spec.model_copy(update={"engine": Engine(gpus=1)})
    return setting.resource.model_copy(update={"spec": spec})


def with_condition(deployment: AdapterDeployment, kind: str, reason: str) -> AdapterDeployment:
    condition = Condition(
        type=kind,
        status="Unknown",
        reason=reason,
        observed_generation=deployment.metadata.generation,
        last_transition_time=datetime(2030, 1, 1, tzinfo=UTC),
    )
    status = deployment.status.model_copy(update={"conditions": (condition,)})
    return deployment.model_copy(update={"status": status})


def add_preparation(setting: Setting, job: str) -> None:
    """The record that a job leaves once it has prepared its data."""
    owner = FineTuneJob.parse(fine_tune_job(job))
    report = RunReport(stage=Stage.PREPARE, outcome=Outcome.SUCCEEDED, model=LLAMA_3_1_8B)
    record = build_record(outcome=AttemptOutcome.SUCCEEDED, report=report)
    setting.add(build_result_config_map(owner, record.model_copy(update={"stage": Stage.PREPARE})))


def fine_tune_job(name: str, model: str = "pvc://models/base") -> Body:
    spec = {
        "baseModel": {"uri": model},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        "method": {"sft": {}},
        "output": {"uri": "pvc://artifacts/out"},
    }
    return body_of("FineTuneJob", name) | {"spec": spec}


@pytest.mark.parametrize("job", ["tune", "another"])
async def test_nodes_are_read_once_for_drivers_and_again_with_sizes_from_a_job_on_the_base_model(
    job: str,
) -> None:
    setting = Setting(indexed=True)
    setting.controller.bodies.put(fine_tune_job("elsewhere", "pvc://models/other"))
    setting.controller.bodies.put(fine_tune_job(job))
    setting.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
    observed = await observe_adapterdeployment(setting.reader, on_gpus(setting))
    assert observed.records == ()
    assert [node["metadata"]["name"] for node in observed.nodes or ()] == ["node"]
    compared = with_condition(on_gpus(setting), "Fits", "NotEstimated")
    observed = await observe_adapterdeployment(setting.reader, compared)
    assert (observed.records, observed.nodes) == ((), None)
    add_preparation(setting, job)
    observed = await observe_adapterdeployment(setting.reader, compared)
    assert find_base_model(observed.records) == LLAMA_3_1_8B
    assert [node["metadata"]["name"] for node in observed.nodes or ()] == ["node"]


async def test_a_job_on_another_model_says_nothing_about_this_one() -> None:
    setting = Setting(indexed=True)
    setting.controller.bodies.put(fine_tune_job("elsewhere", "pvc://models/other"))
    add_preparation(setting, "elsewhere")
    observed = await observe_adapterdeployment(setting.reader, on_gpus(setting))
    assert observed.records == ()


async def test_an_engine_on_cpus_needs_the_forms_of_answers_and_no_nodes() -> None:
    setting = Setting(indexed=True)
    setting.controller.bodies.put(fine_tune_job("tune"))
    add_preparation(setting, "tune")
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert (find_base_model(observed.records), observed.nodes) == (LLAMA_3_1_8B, None)
    engine = Engine(gpus=0, tool_call_parser="hermes", reasoning_parser="None")
    spec = setting.resource.spec.model_copy(update={"engine": engine})
    written = setting.resource.model_copy(update={"spec": spec})
    observed = await observe_adapterdeployment(setting.reader, written)
    assert (observed.records, observed.nodes) == ((), None)


async def test_what_watches_hold_is_not_asked_for_again() -> None:
    setting = Setting(indexed=True)
    setting.controller.bodies.put(
        body_of("FineTuneJob", "tune", phase="Succeeded", artifact={"digest": MADE})
    )
    setting.add(build_verdicts(NAMESPACE, MADE, VERDICT))
    setting.api.calls.clear()
    observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert observed.history is not None and observed.service is not None
    assert setting.api.calls == []


async def unpacked_bodies(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Packed objects that one observation reads beside so many ended jobs and runs of other artifacts."""
    setting = Setting(indexed=True)
    bodies = setting.controller.bodies
    bodies.put(body_of("FineTuneJob", "tune", phase="Succeeded", artifact={"digest": MADE}))
    bodies.put(body_of("EvalRun", "judged", phase="Succeeded", verdict="Pass"))
    setting.add(record_of("uid-of-judged", MADE))
    for number in range(count):
        digest = f"sha256:{number:064x}"
        bodies.put(body_of("FineTuneJob", f"job-{number}", phase="Succeeded", artifact={"digest": digest}))
        bodies.put(body_of("EvalRun", f"run-{number}", phase="Succeeded", verdict="Pass"))
        setting.add(record_of(f"uid-of-run-{number}", digest))
        setting.add(build_verdicts(NAMESPACE, digest, VERDICT))
    setting.add(build_verdicts(NAMESPACE, MADE, VERDICT))
    read: list[Packed] = []
    unpack = Packed.unpack

    def counted(self: Packed) -> Body:
        read.append(self)
        return unpack(self)

    with monkeypatch.context() as patch:
        patch.setattr(Packed, "unpack", counted)
        observed = await observe_adapterdeployment(setting.reader, setting.resource)
    assert [run.body["metadata"]["name"] for run in observed.eval_runs] == ["judged"]
    assert [body["metadata"]["name"] for body in observed.verdicts] == [verdicts_name(MADE)]
    return len(read)


async def test_the_work_does_not_grow_with_the_number_of_ended_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = await unpacked_bodies(2, monkeypatch), await unpacked_bodies(300, monkeypatch)
    assert 0 < many == few
