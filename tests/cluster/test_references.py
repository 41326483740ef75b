"""Reconciles that a change of a referenced resource causes, and the work that they take."""

import asyncio
from typing import Any

import pytest
from api_server.fake_api import FakeApi, until
from simulation.serving_world import ENVIRONMENT, NAMESPACE, World, build_adapter
from simulation.simulated_cluster import EVALUATION, eval_run, fine_tune_job

from tunesmith.api import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.controller import AnyReconciler, Controller
from tunesmith.cluster.observe_adapterdeployment import adapterdeployment_references
from tunesmith.cluster.observe_evalrun import evalrun_references
from tunesmith.cluster.observe_finetunejob import finetunejob_references
from tunesmith.cluster.reconciler import Reader, Reconciler
from tunesmith.controller_runtime.bodies import Key, Reference, key_of
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Plan
from tunesmith.manifests.names import API_VERSION
from tunesmith.manifests.objects import Body

ARTIFACT = {"uri": "pvc://artifacts/x", "digest": "sha256:" + "0" * 64}
ON_BASE: dict[str, Any] = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}}
REWARD = {"name": "r", "model": {"fineTuneJobRef": {"name": "judge"}}}
ON_REWARD: dict[str, Any] = {"method": {"rloo": {"rewards": [REWARD]}}}
ADAPTER = build_adapter("one", source={"fineTuneJobRef": {"name": "tune"}})


def serving_body(*adapters: dict[str, Any]) -> dict[str, Any]:
    return World(*adapters).resource.to_dict() | {"apiVersion": API_VERSION}


def test_references_are_those_that_a_spec_names() -> None:
    base = finetunejob_references(FineTuneJob.parse(fine_tune_job(**ON_BASE)))
    reward = finetunejob_references(FineTuneJob.parse(fine_tune_job(**ON_REWARD)))
    assert [*base, *reward] == [Reference("FineTuneJob", "earlier"), Reference("FineTuneJob", "judge")]
    assert [*evalrun_references(EvalRun.parse(eval_run()))] == [Reference("FineTuneJob", "expenses")]
    of_alias = eval_run(baseline={"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}})
    assert [*evalrun_references(EvalRun.parse(of_alias))] == [
        Reference("FineTuneJob", "expenses"),
        Reference("AdapterDeployment", "chat"),
    ]
    with_run = FineTuneJob.parse(fine_tune_job(evaluation=EVALUATION))
    assert [*finetunejob_references(with_run)] == [Reference("EvalRun", "expenses")]
    by_digest = {"candidate": ARTIFACT, "baseModel": {"uri": "hf://org/model"}}
    assert [*evalrun_references(EvalRun.parse(eval_run(**by_digest)))] == []
    serving = AdapterDeployment.parse(serving_body(ADAPTER, build_adapter("two", "other")))
    expected = [Reference("FineTuneJob", "tune"), Reference("EvalRun", None)]
    assert [*adapterdeployment_references(serving)] == expected
    assert [*adapterdeployment_references(AdapterDeployment.parse(serving_body()))] == []


async def observe(reader: Reader, resource: Any) -> None:
    return None


class Harness:
    """A controller of the three kinds that records what it reconciles and does nothing else."""

    def __init__(self) -> None:
        self.reconciled: list[Key] = []
        kinds: list[AnyReconciler] = [
            Reconciler("FineTuneJob", FineTuneJob.parse, observe, self.plan, finetunejob_references),
            Reconciler("EvalRun", EvalRun.parse, observe, self.plan, evalrun_references),
            Reconciler(
                "AdapterDeployment",
                AdapterDeployment.parse,
                observe,
                self.plan,
                adapterdeployment_references,
            ),
        ]
        api: Any = FakeApi()
        recorder = EventRecorder(api, Metrics(), "pod")
        self.controller = Controller(api, kinds, recorder, Metrics(), ENVIRONMENT)

    def plan(self, resource: Any, *_: Any) -> Plan:
        self.reconciled.append(Key(resource.kind, resource.metadata.namespace, resource.metadata.name))
        return Plan()

    async def settle(self) -> list[Key]:
        """Reconcile all that is queued; returns the keys."""
        self.reconciled.clear()
        worker = asyncio.create_task(self.controller.work())
        await until(lambda: not len(self.controller.queue))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        return sorted(self.reconciled)


def job(name: str, version: int = 1, namespace: str = "team", status: Any = None, **spec: Any) -> Body:
    body = fine_tune_job(**spec)
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}
    body["metadata"] |= metadata | {"resourceVersion": str(version)}
    return body | ({"status": status} if status else {})


def versioned(body: dict[str, Any], version: int = 1, **changes: Any) -> Body:
    return {**body, **changes, "metadata": {**body["metadata"], "resourceVersion": str(version)}}


def serving(name: str, status: dict[str, Any]) -> Body:
    body = serving_body()
    metadata = {**body["metadata"], "name": name, "namespace": "team", "resourceVersion": "1"}
    return {**body, "metadata": metadata, "status": status}


def named_run(name: str, status: dict[str, Any]) -> Body:
    body = versioned(eval_run(), status=status)
    return {**body, "metadata": {**body["metadata"], "name": name, "uid": f"run-{name}"}}


CHECKPOINT = {"step": 100, "time": "2030-01-01T00:00:00Z", **ARTIFACT}
STABLE = {"version": 1, **ARTIFACT}
ALIAS = {"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}}
JOB_KEY, RUN_KEY = Key("FineTuneJob", "team", "waits"), Key("EvalRun", "team", "better")
SERVING_KEY = Key("AdapterDeployment", NAMESPACE, "assistants")


@pytest.mark.parametrize(
    ("referrer", "key", "changed", "woken"),
    [
        (job("waits", **ON_BASE), JOB_KEY, job("earlier", status={"phase": "Succeeded"}), True),
        (job("waits", **ON_REWARD), JOB_KEY, job("judge", status={"phase": "Failed"}), True),
        (versioned(eval_run()), RUN_KEY, job("expenses", status={"phase": "Failed"}), True),
        (versioned(eval_run()), RUN_KEY, job("another", status={"phase": "Failed"}), False),
        (versioned(eval_run()), RUN_KEY, job("expenses", namespace="elsewhere", status={"phase": "Failed"}), False),
        (versioned(eval_run()), RUN_KEY, job("expenses", status={"checkpoints": [CHECKPOINT]}), True),
        (versioned(eval_run(baseline=ALIAS)), RUN_KEY,
         serving("chat", {"adapters": [{"name": "tone", "phase": "Stable", "stable": STABLE}]}), True),
        (job("waits", evaluation=EVALUATION), JOB_KEY, named_run("waits", {"phase": "Succeeded"}), True),
        (versioned(serving_body(ADAPTER)), SERVING_KEY, job("tune", status={"artifact": ARTIFACT}), True),
        (versioned(serving_body(ADAPTER)), SERVING_KEY, job("another", status={"artifact": ARTIFACT}), False),
        (versioned(serving_body(ADAPTER)), SERVING_KEY, versioned(eval_run(), status={"verdict": "Pass"}), True),
        (versioned(serving_body()), SERVING_KEY, versioned(eval_run(), status={"verdict": "Pass"}), False),
    ],
)  # fmt: skip
async def test_the_outcome_of_a_resource_reconciles_those_that_refer_to_it(
    referrer: Body, key: Key, changed: Body, woken: bool
) -> None:
    harness = Harness()
    before = {**changed, "status": {"phase": "Running" if changed["kind"] == "EvalRun" else "Training"}}
    for body in (before, referrer):
        harness.controller.handle_event("ADDED", body)
    await harness.settle()
    harness.controller.handle_event("MODIFIED", versioned(dict(before), 2))
    assert await harness.settle() == [key_of(changed)]
    harness.controller.handle_event("MODIFIED", versioned(dict(changed), 3))
    assert await harness.settle() == sorted([key_of(changed), *([key] if woken else [])])
    harness.controller.handle_event("MODIFIED", versioned(dict(changed), 4))
    assert await harness.settle() == [key_of(changed)]
    harness.controller.handle_event("DELETED", versioned(dict(changed), 5))
    assert await harness.settle() == ([key] if woken else [])


async def test_a_missing_resource_reconciles_those_that_refer_to_it_when_it_appears() -> None:
    harness = Harness()
    harness.controller.handle_event("ADDED", job("waits", **ON_BASE))
    await harness.settle()
    harness.controller.handle_event("ADDED", job("earlier"))
    assert [key.name for key in await harness.settle()] == ["earlier", "waits"]


async def test_a_spec_that_no_longer_refers_to_it_is_left_alone() -> None:
    harness = Harness()
    harness.controller.handle_event("ADDED", versioned(serving_body(ADAPTER)))
    await harness.settle()
    harness.controller.handle_event("MODIFIED", versioned(serving_body(), 2))
    await harness.settle()
    harness.controller.handle_event("ADDED", job("tune", status={"artifact": ARTIFACT}))
    assert [key.name for key in await harness.settle()] == ["tune"]


@pytest.mark.parametrize(("digest", "woken"), [(ARTIFACT["digest"], True), ("sha256:" + "1" * 64, False)])
async def test_the_outcome_of_a_run_reconciles_only_those_that_await_its_artifact(
    digest: str, woken: bool
) -> None:
    harness = Harness()
    harness.controller.handle_event("ADDED", versioned(serving_body(ADAPTER)))
    await harness.settle()
    harness.controller.bodies.await_mentions(SERVING_KEY, {ARTIFACT["digest"]})
    run = {
        **versioned(eval_run()),
        "metadata": {**eval_run()["metadata"], "uid": "run", "resourceVersion": "1"},
    }
    for version, status in enumerate(({}, {"phase": "Succeeded", "candidate": {"digest": digest}}), start=1):
        harness.controller.handle_event("MODIFIED", versioned(run, version, status=status))
    harness.controller.handle_event("DELETED", versioned(run, 3, status={"candidate": {"digest": digest}}))
    assert (SERVING_KEY in await harness.settle()) == woken


class CountedBody(dict[str, Any]):
    """A body that counts how often any such body is read."""

    reads = 0

    def __getitem__(self, key: str) -> Any:
        CountedBody.reads += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        CountedBody.reads += 1
        return super().get(key, default)


async def reads_for_one_outcome(count: int) -> int:
    """Reads of bodies when one of so many resources ends, one other waiting for it."""
    harness = Harness()
    for number in range(count):
        harness.controller.bodies.put(CountedBody(job(f"job-{number}")))
    harness.controller.handle_event("ADDED", job("waits", baseModel={"fineTuneJobRef": {"name": "job-7"}}))
    await harness.settle()
    CountedBody.reads = 0
    harness.controller.handle_event("MODIFIED", CountedBody(job("job-7", 2, status={"phase": "Succeeded"})))
    assert [key.name for key in await harness.settle()] == ["job-7", "waits"]
    return CountedBody.reads


async def test_the_work_for_an_outcome_does_not_grow_with_the_number_of_resources() -> None:
    few, many = await reads_for_one_outcome(10), await reads_for_one_outcome(10_000)
    assert 0 < many == few
