"""Observation of FineTuneJobs and EvalRuns: from memory, in the steady state without any read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
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
from tunesmith.manifests.names import API_VERSION, child_metadata
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith.manifests.verdict_records import VerdictRecord, build_verdicts, read_verdicts
from tunesmith.manifests.version_revision import build_version_revision, promotion_patch
from tunesmith_contract.agent import Version
from tunesmith_contract.report import ComparedSide
from tunesmith_contract.shared_rules.verdict import Verdict
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
    revision["metadata"]["annotations"] = promotion_patch(datetime(2030, 1, 1, tzinfo=UTC), "")["metadata"][
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


def ended_job(job: FineTuneJob, attempt: int) -> Body:
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": child_metadata(job, Stage.TRAIN, attempt)}
    conditions = [{"type": "Failed", "status": "True"}]
    return {**body, "spec": {}, "status": {"conditions": conditions}}


def record_of(job: FineTuneJob, attempt: int) -> Body:
    record = AttemptRecord(
        stage=Stage.TRAIN,
        attempt=attempt,
        outcome=AttemptOutcome.DISRUPTED,
        reason="Disrupted",
        ended_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    return build_result_config_map(job, record)


def build_pod(job: FineTuneJob, attempt: int, **status: Any) -> Body:
    metadata = child_metadata(job, Stage.TRAIN, attempt)
    volumes = [{"name": "key", "secret": {"secretName": "rows-key"}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"volumes": volumes, "containers": [{"name": "trainer", "image": "image"}]},
        "status": status,
    }


def _same(moment: datetime) -> datetime:
    return moment


def index(api: Any, *bodies: Body) -> None:
    for body in bodies:
        api.index.put(body["apiVersion"], body["kind"], api.add(body))


async def test_pods_are_listed_only_for_an_ended_attempt_without_a_record(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job())
    index(api, ended_job(job, 1), record_of(job, 1))
    for _ in range(3):
        await observe_finetunejob(reader, job)
    assert api.calls == []
    index(api, ended_job(job, 2))
    await observe_finetunejob(reader, job)
    assert api.calls == [("list", "Pod")]
    api.calls.clear()
    index(api, build_pod(job, 2, phase="Failed", reason="Evicted"))
    await observe_finetunejob(reader, job)
    assert api.calls == []


async def test_events_are_asked_for_once_per_pod_and_only_after_it_has_hung(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job())
    now = datetime(2030, 1, 1, tzinfo=UTC)
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now.isoformat()}]
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}
    pod = build_pod(job, 1, conditions=conditions, containerStatuses=[waiting])
    index(api, {**ended_job(job, 1), "status": {}}, pod)
    metadata = {"namespace": job.metadata.namespace, "name": "mount"}
    note = 'MountVolume.SetUp failed for volume "key" : secret "rows-key" not found'
    api.add({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": metadata, "note": note})
    for seconds, told in ((29, ()), (30, (note,)), (90, (note,))):
        later = now + timedelta(seconds=seconds)
        observed = await observe_finetunejob(replace(reader, now=partial(_same, later)), job)
        assert observed.related.mount_failures == told
    assert api.calls.count(("list", "Event")) == 1
    api.index.drop("v1", "Pod", api.objects["Pod", job.metadata.namespace, pod["metadata"]["name"]])
    assert (await observe_finetunejob(reader, job)).related.mount_failures == ()
    assert reader.mounts._messages == {}


async def test_authorities_are_looked_for_while_their_pod_waits(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job())
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}
    volumes = [{"name": "authorities", "configMap": {"name": "trust", "items": [{"key": "ca.crt"}]}}]
    pod = {**build_pod(job, 1, containerStatuses=[waiting]), "spec": {"volumes": volumes}}
    index(api, {**ended_job(job, 1), "status": {}}, pod)
    observed = await observe_finetunejob(reader, job)
    assert observed.related.missing_config_maps == ("rows", "trust")
    metadata = {"namespace": job.metadata.namespace, "name": "trust"}
    trust = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"root.pem": "pem"}}
    api.add(trust)
    assert (await observe_finetunejob(reader, job)).related.missing_config_maps == ("rows", "trust/ca.crt")
    api.add({**trust, "binaryData": {"ca.crt": "cGVt"}})
    assert (await observe_finetunejob(reader, job)).related.missing_config_maps == ("rows",)


async def test_the_verdicts_on_the_candidate_are_there_when_the_record_of_its_run_is_made(
    api: Any, reader: Reader
) -> None:
    """Of the runs before it, deleted ones as well, a run's number is counted with its first record."""
    digest, other = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    run = EvalRun.parse(eval_run())
    verdict = VerdictRecord(
        uid="deleted",
        name="better",
        policy_digest="p",
        verdict=Verdict.PASS,
        ended_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    for each in (digest, other):
        api.index.put("v1", "ConfigMap", api.add(build_verdicts("team", each, verdict)))
    metadata = child_metadata(run, Stage.EVALUATE, 1)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    report = success("evaluate")
    assert report.evaluation is not None
    evaluation = report.evaluation.model_copy(update={"compared": (ComparedSide(digest), ComparedSide("r1"))})
    message = report.model_copy(update={"evaluation": evaluation}).to_termination_message().decode()
    ended = {"name": "trainer", "state": {"terminated": {"exitCode": 0, "message": message}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"containerStatuses": [ended]}}
    for kind, body in ((("batch/v1", "Job"), job), (("v1", "Pod"), pod)):
        api.index.put(*kind, api.add({**body, "metadata": {**metadata, "name": f"{kind[1]}-1"}}))
    observed = await observe_evalrun(reader, run)
    assert read_verdicts(observed.verdicts, digest) == (verdict,)
    assert read_verdicts(observed.verdicts, other) == ()
