"""Observation of FineTuneJobs and EvalRuns: from memory, in the steady state without any read."""

from datetime import UTC, datetime
from typing import Any

from simulation.serving_world import World, build_adapter
from simulation.simulated_cluster import EVALUATION, eval_run, fine_tune_job, success

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.observe_evalrun import observe_evalrun
from tunesmith.cluster.observe_finetunejob import observe_finetunejob
from tunesmith.cluster.reconciler import Reader
from tunesmith.manifests.gang_service import build_gang_service
from tunesmith.manifests.names import API_VERSION
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith.manifests.version_revision import build_version_revision, promotion_patch
from tunesmith_contract.agent import Version
from tunesmith_contract.stages import Stage


def stored(body: Body, name: str) -> Body:
    metadata = {**body["metadata"], "name": name, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return {**body, "metadata": metadata}


async def test_an_earlier_job_and_the_eval_run_come_from_memory(api: Any, reader: Reader) -> None:
    reader.bodies.put(stored(fine_tune_job(), "earlier"))
    reader.bodies.put(stored(eval_run(), "expenses"))
    spec = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}, "evaluation": EVALUATION}
    observed = await observe_finetunejob(reader, FineTuneJob.parse(fine_tune_job(**spec)))
    earlier = observed.related.earlier["earlier"]
    assert earlier is not None
    assert earlier.metadata.name == "earlier"
    assert observed.related.eval_run is not None
    assert api.calls == []


async def test_missing_resources_are_observed_as_missing(api: Any, reader: Reader) -> None:
    spec = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}, "evaluation": EVALUATION}
    observed = await observe_finetunejob(reader, FineTuneJob.parse(fine_tune_job(**spec)))
    assert observed.related.earlier == {"earlier": None}
    assert observed.related.eval_run is None
    run = await observe_evalrun(reader, EvalRun.parse(eval_run()))
    assert run.sources.jobs == {"expenses": None}
    assert api.calls == []


async def test_the_services_of_a_gang_come_from_the_index(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job(compute={"nodes": 2, "gpusPerNode": 1}))
    service = api.add(build_gang_service(job, Stage.TRAIN, 1))
    api.index.put("v1", "Service", service)
    observed = await observe_finetunejob(reader, job)
    assert [body["metadata"]["uid"] for body in observed.children.services] == [service["metadata"]["uid"]]
    assert ("list", "Service") not in api.calls


async def test_nodes_and_sizes_of_the_model_are_read_until_an_evaluation_begins(
    api: Any, reader: Reader
) -> None:
    artifact = {"uri": f"pvc://artifacts/sha256/{'a' * 64}", "digest": f"sha256:{'a' * 64}"}
    status = {"phase": "Succeeded", "artifact": artifact}
    body = {**stored(fine_tune_job(), "expenses"), "status": status}
    reader.bodies.put(body)
    report = success("prepare")
    record = AttemptRecord(
        stage=Stage.PREPARE,
        attempt=1,
        outcome=AttemptOutcome.SUCCEEDED,
        reason="Prepared",
        report=report,
        ended_at=datetime(2030, 1, 1, tzinfo=UTC),
        ran_seconds=1.0,
    )
    job = FineTuneJob.parse(body)
    api.index.put("v1", "ConfigMap", api.add(build_result_config_map(job, record)))
    api.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu"}})
    observed = await observe_evalrun(reader, EvalRun.parse(eval_run()))
    assert observed.models == {"expenses": report.model}
    assert [node["metadata"]["name"] for node in observed.gpu_nodes] == ["gpu"]
    on_cpu = await observe_evalrun(reader, EvalRun.parse(eval_run(compute={"gpus": 0})))
    assert on_cpu.gpu_nodes == ()
    candidate = {"uri": "pvc://mine/adapter", "digest": f"sha256:{'a' * 64}"}
    by_uri = eval_run(candidate=candidate, baseModel={"uri": "pvc://models/tiny"})
    without_job = await observe_evalrun(reader, EvalRun.parse(by_uri))
    assert [node["metadata"]["name"] for node in without_job.gpu_nodes] == ["gpu"]


async def test_a_candidates_job_comes_from_memory(api: Any, reader: Reader) -> None:
    reader.bodies.put(stored(fine_tune_job(), "expenses"))
    observed = await observe_evalrun(reader, EvalRun.parse(eval_run()))
    assert observed.sources.jobs["expenses"] is not None
    assert api.calls == []


async def test_an_alias_is_read_from_the_records_and_not_from_a_status(api: Any, reader: Reader) -> None:
    """Anybody with the right to write a status could name another version there."""
    world = World(build_adapter("x", "tone"))
    body = stored({**world.resource.to_dict(), "apiVersion": API_VERSION}, "chat")
    body["metadata"]["namespace"] = "team"
    forged = {"version": 9, "digest": f"sha256:{'f' * 64}", "uri": "pvc://forged/x"}
    reader.bodies.put(
        {**body, "status": {"adapters": [{"name": "tone", "phase": "Stable", "stable": forged}]}}
    )
    deployment = AdapterDeployment.parse(body)
    version = Version(version=1, digest=f"sha256:{'b' * 64}", uri="pvc://artifacts/tone")
    revision = build_version_revision(
        deployment, "tone", version, "Pass", "", "", datetime(2030, 1, 1, tzinfo=UTC)
    )
    revision["metadata"]["annotations"] = promotion_patch(datetime(2030, 1, 1, tzinfo=UTC))["metadata"][
        "annotations"
    ]
    api.index.put("apps/v1", "ControllerRevision", api.add(revision))
    artifact = {"uri": "pvc://artifacts/tone", "digest": version.digest}
    reader.bodies.put({**stored(fine_tune_job(), "maker"), "status": {"artifact": artifact}})
    alias = {"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}}
    observed = await observe_evalrun(reader, EvalRun.parse(eval_run(baseline=alias)))
    served = observed.sources.deployments["chat"]
    assert served is not None
    assert served.stable == {"tone": version}
    assert [job.metadata.name for job in observed.sources.makers.values()] == ["maker"]
    assert api.calls == []


async def test_the_jobs_that_a_candidate_descends_from_come_along(api: Any, reader: Reader) -> None:
    earlier = {"baseModel": {"fineTuneJobRef": {"name": "first"}}}
    reader.bodies.put(stored(fine_tune_job(**earlier), "expenses"))
    reader.bodies.put(stored(fine_tune_job(), "first"))
    observed = await observe_evalrun(reader, EvalRun.parse(eval_run()))
    assert sorted(observed.sources.jobs) == ["expenses", "first"]
    assert api.calls == []


async def test_a_neighbour_that_cannot_be_read_stops_no_other_resource(api: Any, reader: Reader) -> None:
    artifact = {"uri": "pvc://artifacts/tone", "digest": f"sha256:{'b' * 64}"}
    odd = {"artifact": artifact, "phase": 5, "conditions": ["odd"]}
    for name in ("expenses", "earlier"):
        reader.bodies.put({**stored(fine_tune_job(), name), "status": odd})
    candidate = {"uri": artifact["uri"], "digest": artifact["digest"]}
    by_digest = eval_run(candidate=candidate, baseModel={"uri": "pvc://models/tiny"})
    assert (await observe_evalrun(reader, EvalRun.parse(by_digest))).sources.makers == {}
    assert (await observe_evalrun(reader, EvalRun.parse(eval_run()))).sources.jobs == {"expenses": None}
    spec = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}}
    observed = await observe_finetunejob(reader, FineTuneJob.parse(fine_tune_job(**spec)))
    assert observed.related.earlier == {"earlier": None}
