"""An EvalRun's way from waiting for its candidate to a verdict."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from simulation.simulated_cluster import (
    DIGEST,
    ENVIRONMENT,
    UID,
    SimulatedCluster,
    eval_run,
    evaluation_report,
    failure,
    fine_tune_job,
    success,
)
from training_memory.published_memory import LLAMA_3_1_8B

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.planning import assemble_evaluation, plan_evaluation, references_of
from tunesmith.decide.evalrun.sides import ServedAliases, SideSources
from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.decide.plan import Patch, Plan
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith.manifests.run_snapshots import parse_inputs
from tunesmith.manifests.verdict_records import (
    VERDICTS_OWNER,
    VerdictRecord,
    build_verdicts,
    read_verdicts,
    verdicts_name,
)
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.progress import ProgressMetric, TrainerStatus
from tunesmith_contract.report import ComparedSide, Interval, RunReport, SideUsage, SuiteCounts
from tunesmith_contract.run_config import EvaluateConfig, parse_run_config
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_contract.stages import Stage

ARTIFACT = {"uri": f"pvc://artifacts/team/sha256/{'a' * 64}", "digest": DIGEST, "sizeBytes": 7}


class World(SimulatedCluster):
    """A cluster with an EvalRun, its candidate's job, and the operator's reconcile."""

    def __init__(self, job: dict[str, Any] | None = None, **spec: Any) -> None:
        super().__init__(eval_run(**spec))
        self.candidate = job
        self.others: list[dict[str, Any]] = []
        self.deployments: dict[str, ServedAliases | None] = {}
        self.candidate_config_maps: list[Body] = []
        self.nodes: tuple[Body, ...] = ()
        self.progress: LiveProgress | None = None
        self.other_runs: tuple[Body, ...] = ()
        self.claims: dict[str, tuple[str, ...]] = {}
        self.environment = ENVIRONMENT

    def plan(self) -> Plan:
        run = EvalRun.parse(self.resource)
        bodies = [*([self.candidate] if self.candidate else []), *self.others]
        made = [FineTuneJob.parse(body) for body in bodies]
        artifacts = {job.status.artifact.digest: job for job in made if job.status.artifact}
        exports = {
            export.digest: job
            for job in made
            for export in (job.status.artifact.exports if job.status.artifact else ())
        }
        sources = SideSources({job.metadata.name: job for job in made}, self.deployments, artifacts | exports)
        config_maps, jobs, pods = (self.children(kind) for kind in ("ConfigMap", "Job", "Pod"))
        seen = assemble_evaluation(
            run,
            config_maps,
            jobs,
            pods,
            sources,
            source_config_maps={"expenses": self.candidate_config_maps},
            gpu_nodes=self.nodes,
            progress=self.progress,
            other_runs=self.other_runs,
            claims=self.claims,
            verdicts=self.verdicts,
            finished=self.finished_work(run),
        )
        return plan_evaluation(run, seen, self.now, self.environment)

    @property
    def verdicts(self) -> tuple[Body, ...]:
        """The ConfigMaps that keep verdicts."""
        labels = ((body, body["metadata"].get("labels", {})) for body in self.objects.values())
        return tuple(body for body, found in labels if found.get(OWNER_UID_LABEL) == VERDICTS_OWNER)

    def config(self) -> EvaluateConfig:
        text = self.objects[("ConfigMap", "better-0f3c9d-inputs")]["data"]["run.json"]
        config = parse_run_config(text)
        assert isinstance(config, EvaluateConfig)
        return config


def tuned(**spec: Any) -> dict[str, Any]:
    """A FineTuneJob that has succeeded."""
    body = fine_tune_job(**spec)
    body["status"] = {"phase": "Succeeded", "artifact": ARTIFACT, "resolved": {"baseModelRevision": "r1"}}
    return body


def evaluate_container(cluster: World) -> dict[str, Any]:
    """The container of the Job that evaluates."""
    (job,) = cluster.live_jobs()
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_pod_requests_what_the_size_of_its_model_needs() -> None:
    job = tuned()
    job["status"]["resolved"]["parameters"] = 8_000_000_000
    cluster = World(job)
    cluster.reconcile()
    assert evaluate_container(cluster)["resources"]["requests"] == {"cpu": "3", "memory": "11Gi"}
    assert cluster.status["requests"] == {"cpu": "3", "memory": "11Gi"}
    pod = cluster.live_jobs()[0]["spec"]["template"]["spec"]
    assert "nodeAffinity" in pod["affinity"], "off nodes without bfloat16"
    cluster.candidate = None
    cluster.end(ExitCode.COMMUNICATION)
    cluster.pass_time(600)
    cluster.reconcile()
    assert evaluate_container(cluster)["resources"]["requests"] == {"cpu": "3", "memory": "11Gi"}


def test_the_pod_of_a_model_of_unknown_size_requests_little() -> None:
    requests = evaluate_container(running())["resources"]["requests"]
    assert requests == {"cpu": "1", "memory": "4Gi"}


def running(**spec: Any) -> World:
    cluster = World(tuned(), **spec)
    cluster.reconcile()
    return cluster


def test_it_waits_for_its_candidate_and_says_so() -> None:
    cluster = World()
    plan = cluster.reconcile()
    assert not plan.actions
    assert plan.requeue_after is not None
    assert cluster.status["phase"] == "Pending"
    ready = cluster.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "WaitingForCandidate")
    assert ready["message"] == 'FineTuneJob "expenses" does not exist in namespace team: create it.'
    cluster.candidate = fine_tune_job()
    cluster.reconcile()
    assert "it is Pending" in cluster.condition("Ready")["message"]
    cluster.candidate = tuned()
    cluster.reconcile()
    assert cluster.status["phase"] == "Running"


def test_a_failed_candidate_fails_it_for_good() -> None:
    failed = fine_tune_job() | {
        "status": {"phase": "Failed", "failure": {"category": "DataError", "message": "bad"}}
    }
    cluster = World(failed)
    cluster.reconcile()
    cluster.forget_status()
    cluster.candidate = None
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "CandidateFailed"
    assert "bad" in cluster.status["failure"]["message"]


def test_the_contestants_are_pinned_when_it_begins() -> None:
    hub = {"uri": "hf://org/model@main"}
    cluster = World(
        tuned(baseModel=hub),
        candidate={"fineTuneJobRef": {"name": "expenses"}, "systemPrompt": "Be brief."},
        baseline={"base": {}, "fewShot": 5},
        references=[{"name": "old", "uri": "pvc://artifacts/old", "digest": DIGEST}],
    )
    cluster.reconcile()
    cluster.candidate = None
    cluster.reconcile()
    config = cluster.config()
    assert config.base_model == "hf://org/model@r1"
    assert [side.name for side in config.sides] == ["candidate", "baseline", "old"]
    candidate, baseline = config.sides[0].adapter, config.sides[1].adapter
    assert candidate is not None
    assert (candidate.uri, candidate.digest, baseline) == (ARTIFACT["uri"], DIGEST, None)
    assert config.sides[0].system_prompt == "Be brief."
    prepared = f"pvc://artifacts/team/team/{UID}/prepared/train.parquet"
    assert (config.sides[1].few_shot, config.few_shot_from) == (5, prepared)
    assert config.output == "pvc://artifacts/team"


def test_an_artifact_needs_no_job() -> None:
    cluster = World(
        candidate={"uri": "pvc://mine/adapter", "digest": DIGEST}, baseModel={"uri": "pvc://models/tiny"}
    )
    cluster.reconcile()
    assert cluster.config().output == "pvc://mine"
    assert cluster.status["candidate"] == {"uri": "pvc://mine/adapter", "digest": DIGEST}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "reason", "more"),
    [
        (0.3, 0.5, "Pass", "Passed", None),
        (0.05, 0.2, "Inconclusive", "Inconclusive", 120),
        (-0.2, 0.05, "Fail", "NotPassed", None),
    ],
)
def test_the_verdict_follows_the_gates(
    low: float, high: float, verdict: str, reason: str, more: int | None
) -> None:
    cluster = running()
    cluster.end(0, evaluation_report(Interval((low + high) / 2, low, high)))
    assert (cluster.status["phase"], cluster.status["verdict"]) == ("Succeeded", verdict)
    (result,) = cluster.status["results"]
    assert (result["candidate"], result["baseline"], result["items"]) == ("0.9", "0.5", 200)
    assert (result["interval"], result["verdict"]) == ([f"{low:g}", f"{high:g}"], verdict)
    assert (cluster.condition("Ready")["status"], cluster.condition("Ready")["reason"]) == ("True", reason)
    (gate,) = cluster.status["gates"]
    assert (gate["verdict"], gate["threshold"], gate.get("moreItems")) == (verdict, "0.1", more)
    assert gate["message"] in cluster.condition("Ready")["message"]
    assert cluster.status["policyDigest"] == DIGEST
    assert cluster.status["baseline"] == {"uri": "pvc://models/tiny", "digest": "r1"}
    assert [side["side"] for side in cluster.status["sides"]] == ["candidate", "baseline"]
    assert cluster.status["report"]["digest"] == DIGEST
    assert cluster.events == ["Evaluating", reason]


def test_the_runs_of_one_candidate_and_policy_are_counted() -> None:
    def other(name: str, created: str, digest: str = DIGEST, policy: str = DIGEST) -> Body:
        status = {"verdict": "Fail", "candidate": {"digest": digest}, "policyDigest": policy}
        return {"metadata": {"name": name, "creationTimestamp": created}, "status": status}

    cluster = running()
    cluster.resource["metadata"]["creationTimestamp"] = "2030-01-02T00:00:00Z"
    cluster.other_runs = (
        other("first", "2030-01-01T00:00:00Z"),
        other("second", "2030-01-01T12:00:00Z"),
        other("later", "2030-01-03T00:00:00Z"),
        other("of-another-candidate", "2030-01-01T00:00:00Z", digest=f"sha256:{'1' * 64}"),
        other("by-another-policy", "2030-01-01T00:00:00Z", policy=f"sha256:{'2' * 64}"),
    )
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    evaluation = report.evaluation.model_copy(update={"compared": compared})
    cluster.end(0, report.model_copy(update={"evaluation": evaluation}))
    assert cluster.status["runs"] == 3


def report_on(digest: str, delta: Interval) -> RunReport:
    """Report with this difference of a candidate."""
    report = evaluation_report(delta)
    assert report.evaluation is not None
    compared = (ComparedSide(digest), ComparedSide("r1"))
    evaluation = report.evaluation.model_copy(update={"compared": compared})
    return report.model_copy(update={"evaluation": evaluation})


WORSE = report_on(DIGEST, Interval(-0.5, -0.6, -0.4))


def test_a_verdict_is_kept_beside_its_run() -> None:
    cluster = running()
    cluster.end(0, WORSE)
    (kept,) = cluster.verdicts
    assert "ownerReferences" not in kept["metadata"], "garbage collection would take it with the run"
    (record,) = read_verdicts([kept], DIGEST)
    assert (record.name, record.verdict, record.policy_digest, record.run) == ("better", "Fail", DIGEST, 1)
    assert not cluster.reconcile().actions
    # As after an update from a release that kept none.
    del cluster.objects["ConfigMap", kept["metadata"]["name"]]
    cluster.reconcile()
    assert read_verdicts(cluster.verdicts, DIGEST) == (record,)


def test_who_can_read_a_record_finds_its_verdict_kept() -> None:
    """Killed after each action, and carried on from there."""
    for killed_after in range(4):
        cluster = running()
        cluster.finish(cluster.job(), 0, WORSE)
        cluster.carry_out(cluster.plan(), killed_after)
        records = [name for _, name in cluster.objects if "result" in name]
        assert not records or read_verdicts(cluster.verdicts, DIGEST)
        cluster.pass_time(60)
        cluster.reconcile()
        (record,) = read_verdicts(cluster.verdicts, DIGEST)
        assert (record.verdict, record.run) == ("Fail", 1)
        assert not cluster.reconcile().actions


def test_models_without_a_digest_keep_no_verdict() -> None:
    cluster = running()
    cluster.end(0, report_on("main", Interval(-0.5, -0.6, -0.4)))
    assert not cluster.verdicts


def test_deleted_runs_go_on_counting_and_the_oldest_are_dropped() -> None:
    cluster = running()
    for number in range(1, 20):
        earlier = VerdictRecord(
            uid=f"uid-{number}",
            name="better",
            policy_digest=DIGEST,
            verdict=Verdict.FAIL if number == 1 else Verdict.PASS,
            ended_at=cluster.now - timedelta(days=20 - number),
            run=number,
        )
        body = build_verdicts("team", DIGEST, earlier)
        cluster.objects.setdefault(("ConfigMap", body["metadata"]["name"]), body)["data"] |= body["data"]
    cluster.end(0, report_on(DIGEST, Interval(0.4, 0.3, 0.5)))
    assert cluster.status["runs"] == 20
    kept = read_verdicts(cluster.verdicts, DIGEST)
    assert [record.run for record in kept] == [1, *range(5, 21)]
    assert kept[0].verdict is Verdict.FAIL, "the newest that is no Pass still counts"
    for number in range(20, 40):
        later = kept[-1].model_copy(update={"uid": f"uid-{number}", "ended_at": cluster.now, "run": number})
        name = verdicts_name(DIGEST)
        cluster.objects["ConfigMap", name]["data"][later.uid] = later.to_json()
    del cluster.objects["ConfigMap", name]["data"][UID]
    assert not cluster.reconcile().actions, "a run that is still there does not write what was dropped"


def test_status_counts_the_items_of_each_suite() -> None:
    cluster = running()
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    counts = SuiteCounts(items=200, leaked=3, broken=2, truncated=7, incomplete=1)
    evaluation = report.evaluation.model_copy(update={"suites": (counts,)})
    cluster.end(0, report.model_copy(update={"evaluation": evaluation}))
    (suite,) = cluster.status["suites"]
    assert suite == {"name": "task", "items": 200, "leaked": 3, "broken": 2, "truncated": 7, "incomplete": 1}


def test_a_wiped_status_comes_back_without_the_candidate() -> None:
    cluster = running()
    cluster.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    before = cluster.status
    cluster.candidate = None
    cluster.forget_status()
    plan = cluster.reconcile()
    assert cluster.status == before
    assert not plan.actions
    assert not plan.events


def test_attempts_are_bounded_as_in_training() -> None:
    cluster = running(backoffLimit=1)
    plan = cluster.end(ExitCode.INFRASTRUCTURE)
    cluster.pass_time(plan.requeue_after or 0)
    cluster.reconcile()
    cluster.end(ExitCode.INFRASTRUCTURE, failure("evaluate", "Infrastructure", "disk"))
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BackoffLimitExceeded"
    assert cluster.status["failure"]["message"] == "disk"


def test_its_time_is_limited() -> None:
    cluster = running(activeDeadlineSeconds=60)
    cluster.pass_time(60)
    plan = cluster.reconcile()
    assert [type(action) for action in plan.actions] == [Patch]
    cluster.exceed_deadline(cluster.live_jobs()[0])
    cluster.reconcile()
    assert cluster.condition("Stalled")["reason"] == "DeadlineExceeded"


def test_ttl_keeps_the_verdict() -> None:
    cluster = running(ttlSecondsAfterFinished=60)
    cluster.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    cluster.pass_time(60)
    cluster.reconcile()
    assert not cluster.children("Job")
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["verdict"] == "Pass"


def test_a_deleted_run_is_left_alone() -> None:
    cluster = running()
    cluster.resource["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert cluster.plan() == Plan()


@pytest.mark.parametrize(
    ("place", "output"),
    [
        (f"oci://registry.example/team/a:sha256-{'a' * 64}", "oci://registry.example/team/a"),
        (f"hf://org/repo/sha256/{'a' * 64}", "hf://org/repo"),
    ],
)
def test_what_keeps_no_work_files_is_judged_in_the_jobs_workspace(place: str, output: str) -> None:
    """An artifact in a registry or hub: the evaluation works where the job did, with that Secret."""
    work = {"uri": "s3://bucket/work", "secretRef": {"name": "bucket"}}
    job = tuned(workspace=work, output={"uri": output, "secretRef": {"name": "registry"}})
    job["status"]["artifact"] = ARTIFACT | {"uri": place}
    world = World(job)
    world.reconcile()
    assert (world.config().workspace, world.config().output) == ("s3://bucket/work", output)
    (pod,) = (body["spec"]["template"]["spec"] for body in world.live_jobs())
    opened = {
        volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume
    }
    assert opened.items() >= {"secret-workspace": "bucket", "secret-output": "registry"}.items()


def on_gpus(
    gpus: int,
    mebibytes: str | None,
    nodes: tuple[Body, ...] | None = None,
    environment: Environment = ENVIRONMENT,
    **compute: Any,
) -> World:
    """An EvalRun of an 8B model on a node whose GPUs have so much memory, or on other nodes."""
    world = World(tuned(), compute={"gpus": gpus, **compute})
    world.environment = environment
    record = AttemptRecord(
        stage=Stage.PREPARE,
        attempt=1,
        outcome=AttemptOutcome.SUCCEEDED,
        reason="Prepared",
        report=success("prepare").model_copy(update={"model": LLAMA_3_1_8B}),
        ended_at=datetime(2030, 1, 1, tzinfo=UTC),
        ran_seconds=1.0,
    )
    world.candidate_config_maps = [build_result_config_map(FineTuneJob.parse(tuned()), record)]
    labels = {"nvidia.com/gpu.memory": mebibytes} if mebibytes else {}
    world.nodes = (
        {
            "metadata": {"name": "gpu", "labels": labels},
            "status": {"allocatable": {"nvidia.com/gpu": "16"}},
        },
    )
    if nodes is not None:
        world.nodes = nodes
    world.reconcile()
    return world


def test_a_model_that_does_not_fit_is_refused_before_a_gpu_is_requested() -> None:
    world = on_gpus(1, "15360")
    assert not world.children("Job")
    assert world.status["phase"] == "Failed"
    fits = world.condition("Fits")
    assert (fits["status"], fits["reason"]) == ("False", "DoesNotFit")
    assert fits["message"].startswith("The model takes at least 15.0 GiB, but a GPU has 13.7 GiB for it")
    assert fits["message"].endswith("Write compute.gpus: 2, or choose GPUs with more memory.")
    assert world.status["failure"]["message"] == fits["message"]
    world.candidate_config_maps, world.nodes = [], ()
    world.forget_status()
    world.reconcile()
    assert world.condition("Fits")["message"] == fits["message"]
    assert world.status["failure"]["reason"] == "DoesNotFit"


@pytest.mark.parametrize(
    ("gpus", "mebibytes", "status", "reason", "message"),
    [
        (8, "81559", "True", "Fits", "takes at least 15.0 GiB, and a GPU has 74.5 GiB for it."),
        (3, "15360", "True", "Fits", "spread over at least 2 GPUs, which work one after the other"),
        (
            1,
            None,
            "Unknown",
            "GPUMemoryUnknown",
            "takes at least 15.0 GiB. The memory of the GPUs is unknown",
        ),
    ],
)
def test_the_condition_fits_says_how_the_gpus_are_used(
    gpus: int, mebibytes: str | None, status: str, reason: str, message: str
) -> None:
    world = on_gpus(gpus, mebibytes)
    assert len(world.children("Job")) == 1
    fits = world.condition("Fits")
    assert (fits["status"], fits["reason"]) == (status, reason)
    assert message in fits["message"]
    world.nodes = ()
    world.forget_status()
    world.reconcile()
    assert world.condition("Fits")["message"] == fits["message"]


OLD_DRIVER = {"nvidia.com/gpu.memory": "81559", "nvidia.com/cuda.driver-version.full": "535.274.02"}
RESERVED = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


def gpu_node(
    labels: dict[str, str], name: str = "gpu-1", resource: str = "nvidia.com/gpu", **spec: Any
) -> dict[str, Any]:
    status = {"allocatable": {resource: "8"}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def started(world: World, *nodes: dict[str, Any]) -> World:
    world.nodes = nodes
    world.reconcile()
    return world


@pytest.mark.parametrize(
    ("labels", "reason", "message"),
    [
        (
            OLD_DRIVER,
            "DriverTooOld",
            "driver 535.274.02, and CUDA 13 of the trainer image needs 580.65.06 or newer (gpu-1). Update the driver",
        ),
        (
            {"nvidia.com/gpu.product": "Tesla-T4"},
            "UnsupportedGPU",
            "Tesla-T4 has compute capability 7.5, and the trainer image needs 8.0 or higher (gpu-1). GPUs with",
        ),
    ],
)
def test_nodes_that_can_not_be_used_refuse_it_before_its_pod_with_what_to_do(
    labels: dict[str, str], reason: str, message: str
) -> None:
    world = started(World(tuned()), gpu_node(labels))
    assert not world.children("Job")
    fits = world.condition("Fits")
    assert (fits["status"], fits["reason"]) == ("False", reason)
    assert message in fits["message"]
    assert "name other nodes in compute.template.nodeSelector, or write compute.gpuMemory" in fits["message"]
    failure = world.status["failure"]
    assert (failure["category"], failure["reason"]) == ("UserError", reason)
    assert failure["message"] == fits["message"]


def test_a_usable_node_and_memory_that_is_written_start_the_pod() -> None:
    assert started(World(tuned()), gpu_node(OLD_DRIVER), gpu_node({}, "new")).children("Job")
    announced = World(tuned(), compute={"gpus": 1, "gpuMemory": "80Gi"})
    assert started(announced, gpu_node(OLD_DRIVER)).children("Job")


def test_slices_tolerations_of_the_installation_and_shares_count() -> None:
    resource = "nvidia.com/mig-3g.40gb"
    sliced = on_gpus(1, "81559", gpuResource=resource)
    assert "no node with 1 nvidia.com/mig-3g.40gb" in sliced.condition("Fits")["message"]
    sliced = on_gpus(1, None, nodes=(gpu_node({}, resource=resource),), gpuResource=resource)
    assert "a GPU has 35.3 GiB for it" in sliced.condition("Fits")["message"]
    tainted = gpu_node({"nvidia.com/gpu.memory": "81559"}, taints=[RESERVED])
    assert on_gpus(1, None, nodes=(tainted,)).condition("Fits")["reason"] == "GPUMemoryUnknown"
    tolerating = replace(ENVIRONMENT, gpu_tolerations=({"key": "sku", "operator": "Exists"},))
    assert on_gpus(1, None, nodes=(tainted,), environment=tolerating).condition("Fits")["reason"] == "Fits"
    shared = gpu_node({"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.replicas": "4"})
    assert "Up to 4 pods share a GPU" in on_gpus(1, None, nodes=(shared,)).condition("Fits")["message"]


def test_memory_that_is_written_is_compared_without_a_node() -> None:
    assert on_gpus(1, None, nodes=(), gpuMemory="80Gi").condition("Fits")["reason"] == "Fits"
    unknown = on_gpus(1, None, nodes=()).condition("Fits")["message"]
    assert "an autoscaler may add one): write compute.gpuMemory, such as 24Gi" in unknown


def test_a_candidate_without_a_job_has_a_model_of_unknown_size() -> None:
    spec = {
        "candidate": {"uri": "pvc://mine/adapter", "digest": DIGEST},
        "baseModel": {"uri": "pvc://m/tiny"},
    }
    world = World(**spec)
    world.reconcile()
    assert (world.condition("Fits")["status"], world.condition("Fits")["reason"]) == (
        "Unknown",
        "ModelSizeUnknown",
    )
    on_cpu = World(**spec, compute={"gpus": 0})
    on_cpu.reconcile()
    assert "Fits" not in {condition["type"] for condition in on_cpu.status["conditions"]}


def test_a_run_without_models_asks_for_no_gpu_and_says_so() -> None:
    endpoint = {"endpoint": {"url": "https://big.example/v1", "model": "big", "secretRef": {"name": "key"}}}
    world = World(candidate=endpoint, baseline=endpoint, output={"uri": "pvc://reports/team"})
    world.reconcile()
    container = evaluate_container(world)
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}}
    assert "requests no GPU" in world.condition("Fits")["message"]
    (body,) = world.live_jobs()
    grace = body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == 120, "answers on their way are paid for"
    assert world.status["candidate"]["uri"] == "https://big.example/v1 big"
    assert world.status.get("baseModelRevision", "") == ""


def test_secrets_are_files_of_the_pod_alone() -> None:
    """None of their names is in the arguments, the variables or the status."""
    endpoint = {
        "endpoint": {"url": "https://big.example/v1", "model": "big", "secretRef": {"name": "big-key"}}
    }
    suite = {
        "name": "task",
        "dataset": {"uri": "s3://data/t.jsonl", "secretRef": {"name": "data-key"}},
        "metrics": [{"type": "ExactMatch"}, {"type": "Judge", "judge": endpoint}],
    }
    world = running(baseline=endpoint, suites=[suite])
    (pod,) = (body["spec"]["template"]["spec"] for body in world.live_jobs())
    (only,) = pod["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in only["volumeMounts"]}
    opened = {
        volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume
    }
    assert opened == {
        "secret-side-baseline": "big-key",
        "secret-suite-task": "data-key",
        "secret-metric-task-1": "big-key",
    }
    assert folders["secret-side-baseline"] == "/var/run/secrets/tunesmith-user/side-baseline"
    shown = f"{only['env']}{only['command']}{world.status}"
    assert "big-key" not in shown
    assert "data-key" not in shown


def test_a_missing_secret_of_any_role_names_the_field_to_correct() -> None:
    endpoint = {"endpoint": {"url": "https://big.example/v1", "model": "big", "secretRef": {"name": "key"}}}
    world = running(references=[{"name": "big", **endpoint}])
    missing = {"secret://key"} & set(_references_of(world))
    assert missing
    assert _references_of(world)["secret://key"] == "spec.references[big].endpoint.secretRef.name"


def _references_of(world: World) -> dict[str, str]:
    run = EvalRun.parse(world.resource)
    config_maps = world.children("ConfigMap")
    observed = assemble_evaluation(run, config_maps, [], [])
    assert observed.inputs is not None
    return dict(references_of(run, parse_inputs(observed.inputs), observed).fields)


def test_progress_is_shown_while_the_attempt_runs() -> None:
    world = running()
    metrics = {"current_step": "450", "total_steps": "1000", "completion_tokens": "9000"}
    update = TrainerStatus(
        last_updated_time=world.now,
        progress_percentage=45,
        estimated_remaining_seconds=300,
        metrics=tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items()),
    )
    world.progress = LiveProgress("evaluate", 1, update)
    world.reconcile()
    assert world.status["progress"] == {
        "percent": "45%",
        "remaining": "5m",
        "answers": "450/1000",
        "tokens": 9000,
        "updated": "2030-01-01T00:00:00Z",
    }
    world.progress = LiveProgress("evaluate", 2, update)
    world.reconcile()
    assert "progress" not in world.status, "another attempt's"
    world.progress = LiveProgress("evaluate", 1, update)
    world.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    assert "progress" not in world.status


@pytest.mark.parametrize("value", ["", "-1", "1e9", "x" * 64, "9" * 64])
def test_numbers_of_a_pod_are_not_trusted(value: str) -> None:
    world = running()
    names = ("current_step", "total_steps", "completion_tokens")
    update = TrainerStatus(
        last_updated_time=world.now,
        estimated_remaining_seconds=10**12,
        metrics=tuple(ProgressMetric(name=name, value=value) for name in names),
    )
    world.progress = LiveProgress("evaluate", 1, update)
    world.reconcile()
    assert len(world.status["progress"]["remaining"]) <= 16
    assert EvalRun.parse(world.resource).status.progress is not None


def test_tokens_and_money_are_told_with_the_gpu_time() -> None:
    world = running()
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    usage = (SideUsage("r1", 1000, 50, 0.5), SideUsage("", 2000, 70, 0.7))
    paid = report.evaluation.model_copy(update={"usage": usage, "amount": "0.012", "currency": "EUR"})
    world.pass_time(60)
    world.end(0, report.model_copy(update={"evaluation": paid}))
    cost = world.status["cost"]
    assert (cost["promptTokens"], cost["completionTokens"]) == (3000, 120)
    assert (cost["amount"], cost["currency"]) == ("0.012", "EUR")


def test_references_are_told_with_their_sources() -> None:
    world = running(references=[{"name": "old", "uri": "pvc://artifacts/old", "digest": DIGEST}])
    assert world.status["references"] == [{"name": "old", "uri": "pvc://artifacts/old", "digest": DIGEST}]


def test_other_models_of_unknown_size_are_named() -> None:
    world = on_gpus(1, "81559")
    other = World(
        tuned(),
        compute={"gpus": 1},
        baseline={"model": {"uri": "hf://big/model@main"}},
    )
    other.candidate_config_maps, other.nodes = world.candidate_config_maps, world.nodes
    other.reconcile()
    fits = other.condition("Fits")
    assert (fits["status"], fits["reason"]) == ("Unknown", "ModelSizeUnknown")
    assert "unknown (hf://big/model@main)" in fits["message"]


def test_advice_is_told_where_the_use_of_the_model_is_stated() -> None:
    prices = {"inputPricePerMillion": "0.2", "outputPricePerMillion": "0.4", "currency": "EUR"}
    use = {
        "bar": "0.95",
        "examples": 800,
        "latencyBudgetSeconds": "2",
        "trainingCost": "40",
        "prices": prices,
    }
    world = running(advice=use)
    world.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    assert "candidate scores 0.9 (0.85 to 0.95) by ExactMatch on 200 items" in world.status["advice"]
    assert "The tuned model costs 0.2 EUR per million tokens of prompts" in world.status["advice"]
    without = running()
    without.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    assert without.status.get("advice", "") == ""


@pytest.mark.parametrize("wiped", [False, True])
@pytest.mark.parametrize(("low", "verdict"), [(0.3, "Pass"), (-0.5, "Fail"), (0.0, "Inconclusive")])
def test_a_run_that_lost_its_inputs_keeps_its_outcome(low: float, verdict: str, wiped: bool) -> None:
    world = running(safety={"disabled": True, "reason": "A test."})
    report = evaluation_report(Interval(low + 0.1, low, low + 0.2))
    assert report.evaluation is not None
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    world.end(
        0,
        report.model_copy(update={"evaluation": report.evaluation.model_copy(update={"compared": compared})}),
    )
    before = world.status
    del world.objects[("ConfigMap", "better-0f3c9d-inputs")]
    world.candidate = None
    if wiped:
        world.forget_status()
    plan = world.reconcile()
    assert (world.status["phase"], world.status["verdict"]) == ("Succeeded", verdict)
    kept = (
        "results",
        "sides",
        "gates",
        "change",
        "table",
        "policyDigest",
        "report",
        "completionTime",
        "attempts",
    )
    assert {name: world.status[name] for name in kept} == {name: before[name] for name in kept}
    assert world.condition("Ready")["reason"] in {"Passed", "NotPassed", "Inconclusive"}
    places = ("", "") if wiped else (before["candidate"]["uri"], before["baseline"]["uri"])
    assert (world.status["candidate"]["uri"], world.status["baseline"]["uri"]) == places
    assert (world.status["candidate"]["digest"], world.status["baseline"]["digest"]) == (DIGEST, "r1")
    assert not plan.actions
    assert not plan.events


def test_without_inputs_the_evidence_decides_where_gates_were_added_since() -> None:
    world = running(safety={"disabled": True, "reason": "A test."})
    world.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    del world.objects[("ConfigMap", "better-0f3c9d-inputs")]
    world.resource["spec"]["gates"].append({"suite": "task", "metric": "ExactMatch", "expect": "NotWorse"})
    world.reconcile()
    assert (world.status["phase"], world.status["verdict"]) == ("Succeeded", "Pass")
    assert not world.status["gates"]
    assert "inputs are gone" in world.condition("Ready")["message"]


def lose_inputs(world: World) -> Body:
    """Delete the inputs; returns what they held."""
    data: Body = world.objects.pop(("ConfigMap", "better-0f3c9d-inputs"))["data"]
    return data


def test_a_run_whose_inputs_are_deleted_while_it_answers_keeps_its_verdict() -> None:
    world = running(safety={"disabled": True, "reason": "A test."})
    lose_inputs(world)
    world.candidate = None
    before = world.status
    world.pass_time(600)
    world.reconcile()
    assert world.status["phase"] == "Running"
    kept = ("candidate", "baseline", "startTime")
    assert {name: world.status[name] for name in kept} == {name: before[name] for name in kept}
    world.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    assert (world.status["phase"], world.status["verdict"]) == ("Succeeded", "Pass")
    assert world.condition("Stalled")["status"] == "False"


def test_another_candidate_of_the_same_name_does_not_get_the_verdict_of_a_run_that_lost_its_inputs() -> None:
    world = running(safety={"disabled": True, "reason": "A test."})
    lose_inputs(world)
    assert world.candidate is not None
    world.candidate["status"]["artifact"]["digest"] = f"sha256:{'f' * 64}"
    world.reconcile()
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    told = report.evaluation.model_copy(update={"compared": compared})
    world.end(0, report.model_copy(update={"evaluation": told}))
    assert world.status["verdict"] == "Pass"
    assert world.status["candidate"]["digest"] == DIGEST


def test_inputs_that_are_deleted_before_the_pod_starts_are_made_again() -> None:
    world = running()
    started = {"reason": "ContainerCreating"}
    world.pod_of(world.job())["status"] = {
        "containerStatuses": [{"name": "trainer", "state": {"waiting": started}}]
    }
    data = lose_inputs(world)
    world.pass_time(60)
    world.reconcile()
    again = world.objects[("ConfigMap", "better-0f3c9d-inputs")]["data"]
    assert {**again, "fit.json": ""} == {**data, "fit.json": ""}


def test_the_next_attempt_of_a_run_without_inputs_waits_for_what_it_compares() -> None:
    world = running()
    lose_inputs(world)
    candidate, world.candidate = world.candidate, None
    world.end(1)
    world.pass_time(10**4)
    world.reconcile()
    assert world.status["phase"] == "Pending"
    assert "inputs was deleted" in world.condition("Ready")["message"]
    assert world.condition("Stalled")["status"] == "False"
    world.candidate = candidate
    world.reconcile()
    assert world.job()["metadata"]["name"] == "better-0f3c9d-evaluate-2"
    world.end(0, evaluation_report(Interval(0.4, 0.3, 0.5)))
    assert world.status["phase"] == "Succeeded"


def test_the_report_lies_beside_the_answers() -> None:
    world = running()
    report = evaluation_report(Interval(0.4, 0.3, 0.5))
    assert report.evaluation is not None
    details = report.evaluation.details.model_copy(update={"uri": "pvc://artifacts/x/items.jsonl"})
    other = f"sha256:{'e' * 64}"
    told = report.evaluation.model_copy(
        update={"details": details, "report_digest": other, "report_bytes": 4711}
    )
    world.end(0, report.model_copy(update={"evaluation": told}))
    assert world.status["answers"] == {
        "uri": "pvc://artifacts/x/items.jsonl",
        "digest": DIGEST,
        "sizeBytes": 3,
    }
    shown = world.status["report"]
    assert shown == {"uri": "pvc://artifacts/x/report.json", "digest": other, "sizeBytes": 4711}


def test_pods_share_the_items_without_a_connection() -> None:
    world = running(parallelism=3, compute={"gpus": 2})
    (job,) = world.live_jobs()
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    pod = spec["template"]["spec"]
    assert "subdomain" not in pod
    assert not any(variable["name"].startswith("PET_") for variable in pod["containers"][0]["env"])
    assert not world.children("Service")
    assert world.config().shards == 3
    world.pass_time(100)
    world.reconcile()
    assert world.status["cost"]["gpuSeconds"] == "0", "no pod has started"


def test_a_deleted_pod_spends_no_retry_though_its_partner_had_to_be_killed() -> None:
    world = running(parallelism=2, backoffLimit=0)
    job = world.job()
    world.delete_pod(job, 1)
    world.finish_pod(job, ExitCode.PREEMPTED, index=1)
    world.delete_pod(job)
    world.pass_time(30)
    world.finish_pod(job, 137)
    world.end_job(job, ExitCode.PREEMPTED)
    world.reconcile()
    assert (world.status["phase"], world.status["disruptions"]) == ("Running", 1)


@pytest.mark.parametrize(
    ("claims", "needed_by"),
    [
        ({"artifacts": ("ReadWriteMany",), "data": ("ReadOnlyMany",), "models": ("ReadWriteMany",)}, ""),
        ({"artifacts": ("ReadWriteOnce",), "data": ("ReadWriteMany",)}, "artifacts"),
        ({"artifacts": ("ReadOnlyMany",)}, "artifacts"),
        ({"artifacts": ("ReadWriteMany",), "data": ("ReadWriteOnce",)}, "data"),
        ({}, ""),
    ],
)
def test_pods_that_share_a_claim_of_one_node_run_on_one(
    claims: dict[str, tuple[str, ...]], needed_by: str
) -> None:
    cluster = World(tuned(), parallelism=3)
    cluster.claims = claims
    cluster.reconcile()
    template = cluster.live_jobs()[0]["spec"]["template"]
    affinity = template["spec"].get("affinity", {})
    if not needed_by:
        assert "podAffinity" not in affinity
        return
    (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "tunesmith.dev/attempt" in term["labelSelector"]["matchLabels"], (
        "pods of earlier attempts do not bind"
    )
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes.",
    }
    waiting = cluster.pod_of(cluster.job())
    waiting["metadata"]["annotations"] = template["metadata"]["annotations"]
    waiting["status"] = {"phase": "Pending", "conditions": [scheduled]}
    cluster.reconcile()
    message = cluster.condition("Ready")["message"]
    assert f'PersistentVolumeClaim "{needed_by}" can be mounted on one at a time' in message


def test_one_pod_needs_no_claim_that_others_can_mount() -> None:
    cluster = World(tuned())
    cluster.claims = {"artifacts": ("ReadWriteOncePod",)}
    cluster.reconcile()
    assert "podAffinity" not in cluster.live_jobs()[0]["spec"]["template"]["spec"]["affinity"]


def test_a_claim_for_one_pod_is_refused_before_several_are_made() -> None:
    cluster = World(tuned(), parallelism=3)
    cluster.claims = {"artifacts": ("ReadWriteOncePod",)}
    cluster.reconcile()
    assert not cluster.live_jobs()
    assert cluster.condition("Stalled")["reason"] == "ClaimNotShared"
    message = cluster.status["failure"]["message"]
    assert message.startswith(
        'PersistentVolumeClaim "artifacts" is ReadWriteOncePod: 3 pods can\'t all mount it.'
    )
    assert "write parallelism: 1" in message


def test_the_cost_so_far_is_told_while_the_attempt_runs() -> None:
    world = running()

    def tell(**metrics: str) -> Body:
        told = tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items())
        status = TrainerStatus(last_updated_time=world.now, metrics=told)
        world.progress = LiveProgress("evaluate", 1, status)
        world.reconcile()
        cost: Body = world.status["cost"]
        return cost

    cost = tell(prompt_tokens="9000", completion_tokens="700", amount="0.0123", currency="EUR")
    assert cost == {
        "gpuSeconds": "0",
        "promptTokens": 9000,
        "completionTokens": 700,
        "amount": "0.0123",
        "currency": "EUR",
    }
    for amount, currency in (("-1", "EUR"), ("1e9", "EUR"), ("1", "euro"), ("1" * 30, "EUR")):
        assert "amount" not in tell(amount=amount, currency=currency)


def test_an_attempt_whose_job_was_deleted_is_a_disruption_and_not_run_again() -> None:
    world = running(compute={"gpus": 2})
    world.pass_time(100)
    job = world.job()
    world.delete_pod(job)
    world.finish_pod(job, 143)
    del world.objects[("Job", job["metadata"]["name"])]
    world.reconcile()
    assert (world.status["phase"], world.status["disruptions"]) == ("Running", 1)
    assert world.status["cost"]["gpuSeconds"] == "200"
    world.pass_time(60)
    world.reconcile()
    assert world.job()["metadata"]["name"] == "better-0f3c9d-evaluate-2"


def test_an_evaluation_whose_job_is_refused_says_so_and_keeps_the_number_of_its_attempt() -> None:
    world = running()
    world.end(1)
    words = "exceeded quota: team, requested: count/jobs.batch=1, limited: count/jobs.batch=1"
    world.refuses["Job"] = words
    for _ in range(3):
        world.pass_time(60)
        world.reconcile()
    assert world.status["phase"] == "Running"
    for kind in ("JobCreated", "Ready"):
        assert (world.condition(kind)["status"], world.condition(kind)["message"]) == ("False", words)
    world.refuses.clear()
    world.reconcile()
    assert world.job()["metadata"]["name"] == "better-0f3c9d-evaluate-2"
    assert world.status["disruptions"] == 0
    assert "JobCreated" not in {condition["type"] for condition in world.status["conditions"]}
