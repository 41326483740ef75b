"""The Jobs and ConfigMaps of FineTuneJobs and EvalRuns."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from simulation.simulated_cluster import ENVIRONMENT, EVALUATION, START, eval_run, fine_tune_job, success

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import ObservedTraining
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.finetunejob.run_config import resolve_run
from tunesmith.decide.plan import Create
from tunesmith.decide.run.children import Children
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import build_eval_run
from tunesmith.manifests.names import CONTROLLER_LABEL, controller_of
from tunesmith.manifests.result_config_map import (
    AttemptOutcome,
    AttemptRecord,
    build_result_config_map,
    parse_result,
)
from tunesmith.manifests.run_snapshots import (
    Inputs,
    build_inputs_config_map,
    build_run_config_map,
    parse_inputs,
    parse_run,
)
from tunesmith.manifests.stage_jobs import SMALL_REQUESTS, build_data_job, build_train_job
from tunesmith.manifests.trial_job import build_trial_job
from tunesmith.manifests.trial_records import TrialProposal
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.stages import Stage

GPU = "nvidia.com/gpu"


def parts(**spec: Any) -> tuple[FineTuneJob, Inputs, TrainConfig]:
    """A job with its two snapshots."""
    body = fine_tune_job(**spec)
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus", "other": "x"}
    job = FineTuneJob.parse(body)
    plan = plan_training(job, ObservedTraining(), START, ENVIRONMENT)
    first = plan.actions[0]
    assert isinstance(first, Create)
    inputs = parse_inputs(first.manifest)
    run = resolve_run(job.spec, inputs, success("prepare"))
    assert isinstance(run, TrainConfig)
    return job, inputs, run


def train_pod(
    environment: Environment = ENVIRONMENT, requests: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """The pod's spec of a train Job."""
    job, inputs, run = parts(**spec)
    manifest = build_train_job(job, inputs, run, 1, environment, requests=requests or SMALL_REQUESTS)
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def excluded(pod: dict[str, Any], label: str) -> list[str]:
    """Values of a node label that keep a pod off a node; in each term of its affinity."""
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    terms = [term["matchExpressions"] for term in required["nodeSelectorTerms"]]
    values = [
        [
            value
            for each in term
            if each["key"] == label and each["operator"] == "NotIn"
            for value in each["values"]
        ]
        for term in terms
    ]
    assert all(each == values[0] for each in values)
    return values[0]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(pod)["env"]}


def test_snapshots_survive_their_config_maps() -> None:
    job, inputs, run = parts()
    assert parse_inputs(build_inputs_config_map(job, inputs)) == inputs
    assert parse_run(build_run_config_map(job, run)) == run
    with pytest.raises(ValueError, match="another stage"):
        parse_run(build_inputs_config_map(job, inputs))


def test_records_survive_their_config_maps() -> None:
    job, _, _ = parts()
    record = AttemptRecord(
        stage="train",
        attempt=3,
        outcome=AttemptOutcome.SUCCEEDED,
        reason="Succeeded",
        report=success("train"),
        started_at=START,
        ended_at=datetime(2030, 1, 1, 1, tzinfo=UTC),
    )
    manifest = build_result_config_map(job, record)
    assert manifest["metadata"]["name"] == "expenses-0f3c9d-result-train-3"
    assert manifest["immutable"] is True
    assert parse_result(manifest) == record
    assert record.active_seconds == 3600
    assert Children((record,)).active_seconds == 3600
    assert parse_result({"metadata": {"name": "other"}, "data": {}}) is None


def test_an_attempt_tries_once_and_its_queue_decides_when() -> None:
    job, inputs, run = parts()
    manifest = build_train_job(job, inputs, run, 2, ENVIRONMENT)
    spec = manifest["spec"]
    assert (spec["backoffLimit"], spec["completionMode"], spec["podReplacementPolicy"]) == (
        0,
        "Indexed",
        "Failed",
    )
    assert "suspend" not in spec
    assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"FailJob"}
    (exit_codes,) = (
        rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    )
    assert exit_codes == sorted(exit_codes), "the API server refuses others"
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "other" not in manifest["metadata"]["labels"]
    assert manifest["metadata"]["name"] == "expenses-0f3c9d-train-2"


def test_only_training_gets_gpus_and_the_size_that_was_asked_for() -> None:
    compute = {"gpusPerNode": 2, "resources": {"requests": {"memory": "16Gi"}, "limits": {"cpu": "4"}}}
    job, inputs, _ = parts(compute=compute)
    prepare = build_data_job(job, inputs, Stage.PREPARE, 1, ENVIRONMENT)["spec"]["template"]["spec"]
    assert container(prepare)["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "4"},
    }
    pod = train_pod(compute=compute)
    assert container(pod)["resources"] == {"requests": {"memory": "16Gi"}, "limits": {"cpu": "4", GPU: "2"}}
    assert "/dev/shm" in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}


def test_a_pod_reaches_the_operator_and_nothing_else() -> None:
    pod = train_pod()
    values = variables(pod)
    assert values["KUBEFLOW_TRAINER_SERVER_URL"] == (
        "https://tunesmith.operators.svc:8443/progress/v1/namespaces/team/finetunejobs/expenses"
    )
    assert values["KUBEFLOW_TRAINER_SERVER_TOKEN"] == "/var/run/secrets/tunesmith/token"
    assert values["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == "/var/run/secrets/tunesmith/ca.crt"
    assert pod["automountServiceAccountToken"] is False
    assert container(pod)["securityContext"]["readOnlyRootFilesystem"] is True
    assert container(pod)["command"] == ["python", "-m", "tunesmith_trainer", "train"]


def test_threads_follow_the_limit_of_the_container() -> None:
    cores = {"resource": "limits.cpu", "containerName": "trainer"}
    values = variables(train_pod())
    assert values["OMP_NUM_THREADS"] == values["TUNESMITH_CPUS"] == {"resourceFieldRef": cores}


def test_a_hub_is_asked_only_where_one_is_named() -> None:
    assert variables(train_pod())["HF_HUB_OFFLINE"] == "1"
    values = variables(train_pod(baseModel={"uri": "hf://org/model@main", "secretRef": {"name": "hub"}}))
    assert "HF_HUB_OFFLINE" not in values
    assert values["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert values["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


@pytest.mark.parametrize(
    "model", ["hf://org/model@main", "s3://bucket/model", "oci://registry.example/model:1"]
)
def test_what_is_fetched_finds_room(model: str) -> None:
    sizes = [
        volume["emptyDir"]["sizeLimit"]
        for pod in (train_pod(), train_pod(baseModel={"uri": model}))
        for volume in pod["volumes"]
        if volume["name"] == "tmp"
    ]
    assert sizes == ["8Gi", "256Gi"]


def test_derived_requests_are_below_those_that_are_written() -> None:
    derived = {"cpu": "24", "memory": "300Gi", "ephemeral-storage": "40Gi"}
    compute = {"gpusPerNode": 8, "resources": {"requests": {"memory": "64Gi"}, "limits": {"cpu": "16"}}}
    resources = container(train_pod(requests=derived, compute=compute))["resources"]
    assert resources["requests"] == {"memory": "64Gi", "ephemeral-storage": "40Gi"}
    assert resources["limits"] == {"cpu": "16", GPU: "8"}


def test_the_scratch_space_holds_what_is_requested_of_the_disk() -> None:
    pods = [train_pod(requests=SMALL_REQUESTS | {"ephemeral-storage": size}) for size in ("2Gi", "900Gi")]
    sizes = [
        volume["emptyDir"]["sizeLimit"]
        for pod in pods
        for volume in pod["volumes"]
        if volume["name"] == "tmp"
    ]
    assert sizes == ["8Gi", "900Gi"]


DRIVER = "nvidia.com/cuda.driver-version.major"


def test_pods_with_gpus_are_kept_off_nodes_that_can_not_train() -> None:
    terms = [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in ("a", "b")
    ]
    affinity = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    }
    pod = train_pod(compute={"gpusPerNode": 1, "template": {"affinity": affinity}})
    assert {"535", "575"} <= set(excluded(pod, DRIVER))
    assert "580" not in excluded(pod, DRIVER)
    assert excluded(pod, "nvidia.com/gpu.compute.major") == ["3", "4", "5", "6", "7"]
    written = [
        term["matchExpressions"][0]
        for term in pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
    ]
    assert [each["values"] for each in written] == [["a"], ["b"]]
    assert "affinity" not in train_pod(compute={"gpusPerNode": 0})


def test_an_image_for_an_older_cuda_runs_with_older_drivers() -> None:
    pod = train_pod(replace(ENVIRONMENT, trainer_cuda=12))
    assert "470" in excluded(pod, DRIVER)
    assert "535" not in excluded(pod, DRIVER)


def test_the_cuda_of_an_own_image_is_unknown() -> None:
    pod = train_pod(compute={"gpusPerNode": 1, "image": "own:1"})
    assert excluded(pod, DRIVER) == []
    assert "7" in excluded(pod, "nvidia.com/gpu.compute.major")


def prepare_volumes(**spec: Any) -> dict[str, bool]:
    """What of claims and ConfigMaps is mounted into the pod, and whether it is read-only."""
    job, inputs, _ = parts(**spec)
    pod = build_data_job(job, inputs, Stage.PREPARE, 1, ENVIRONMENT)["spec"]["template"]["spec"]
    mounts = container(pod)["volumeMounts"]
    return {
        mount["mountPath"].removeprefix("/mnt/tunesmith/"): mount["readOnly"]
        for mount in mounts
        if mount["mountPath"].startswith("/mnt/tunesmith/")
    }


def test_prepare_gets_all_that_it_reads() -> None:
    suites = [
        {"name": name, "dataset": {"uri": uri}, "metrics": [{"type": "ExactMatch"}]}
        for name, uri in (("task", "pvc://tests/task.jsonl"), ("few", "configmap://few/rows.jsonl"))
    ]
    train = {"uris": ["pvc://data/parts/", "pvc://inbox/rows-*.csv", "pvc://data/more.jsonl"]}
    assert prepare_volumes(
        dataset={"train": train, "validation": {"uri": "configmap://validation/rows.jsonl"}},
        evaluation=EVALUATION | {"suites": suites},
    ) == {
        "configmap/few": True,
        "configmap/validation": True,
        "pvc/artifacts": False,
        "pvc/data": True,
        "pvc/inbox": True,
        "pvc/models": True,
        "pvc/tests": True,
    }


def test_prepare_asks_the_hub_for_rows_of_an_evaluation() -> None:
    hub = [
        {"name": "task", "dataset": {"uri": "hf://org/rows/a.jsonl@r"}, "metrics": [{"type": "ExactMatch"}]}
    ]
    for suites, offline in ((EVALUATION["suites"], True), (hub, False)):
        job, inputs, _ = parts(evaluation=EVALUATION | {"suites": suites})
        pod = build_data_job(job, inputs, Stage.PREPARE, 1, ENVIRONMENT)["spec"]["template"]["spec"]
        assert ("HF_HUB_OFFLINE" in variables(pod)) is offline


def test_placement_is_as_written() -> None:
    template = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    pod = train_pod(compute={"template": template})
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"][0] == {"key": "gpu", "operator": "Exists"}


def test_the_evaluation_judges_the_jobs_artifact() -> None:
    evaluation = {key: value for key, value in eval_run()["spec"].items() if key != "candidate"}
    job = FineTuneJob.parse(fine_tune_job(evaluation=evaluation | {"candidate": {"fewShot": 2}}))
    assert job.spec.evaluation is not None
    made = build_eval_run(job, job.spec.evaluation)
    assert made["spec"]["candidate"] == {"fewShot": 2, "fineTuneJobRef": {"name": "expenses"}}
    made["metadata"] |= {"uid": "u", "generation": 1}
    assert EvalRun.parse(made).spec.gates == job.spec.evaluation.gates


def test_what_a_job_makes_belongs_to_its_controller() -> None:
    body = fine_tune_job(evaluation=EVALUATION)
    body["metadata"]["labels"] = {CONTROLLER_LABEL: "team-a"}
    job = FineTuneJob.parse(body)
    assert job.spec.evaluation is not None
    made = build_eval_run(job, job.spec.evaluation)
    assert controller_of(made["metadata"]["labels"]) == "team-a"
    trial = build_trial_job(job, TrialProposal(number=1, parameters={}))
    assert controller_of(trial["metadata"]["labels"]) == "team-a"
