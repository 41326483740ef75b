"""Pods with GPUs: taints, runtime class, variables, network devices, caches, grace periods."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, ENVIRONMENT, START, eval_run, fine_tune_job, success

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.pod_template import PodTemplate
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.decide.finetunejob.observed import ObservedTraining
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.finetunejob.run_config import resolve_run
from tunesmith.decide.plan import Create
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.pods import pod_placement
from tunesmith.manifests.run_snapshots import Inputs, parse_inputs
from tunesmith.manifests.stage_jobs import build_data_job, build_evaluate_job, build_train_job
from tunesmith.manifests.trainer_job import KEEP_IPC_LOCK
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.stages import Stage

GPU = "nvidia.com/gpu"
GPU_TOLERATION = {"key": GPU, "operator": "Exists"}
NODES: dict[str, Any] = {"nodes": 2, "gpusPerNode": 8}
NETWORK: dict[str, Any] = {"resource": "rdma/hca_shared_devices_a", "count": 2}


def pods(environment: Environment = ENVIRONMENT, **compute: Any) -> dict[Stage, dict[str, Any]]:
    """The pods of prepare and train of a job with this ``compute``."""
    job = FineTuneJob.parse(fine_tune_job(compute=compute))
    first = plan_training(job, ObservedTraining(), START, environment).actions[0]
    assert isinstance(first, Create)
    inputs = parse_inputs(first.manifest)
    run = resolve_run(job.spec, inputs, success("prepare"))
    assert isinstance(run, TrainConfig)
    jobs = {
        Stage.PREPARE: build_data_job(job, inputs, Stage.PREPARE, 1, environment),
        Stage.TRAIN: build_train_job(job, inputs, run, 1, environment),
    }
    return {stage: manifest["spec"]["template"]["spec"] for stage, manifest in jobs.items()}


def train_pod(environment: Environment = ENVIRONMENT, **compute: Any) -> dict[str, Any]:
    return pods(environment, **compute)[Stage.TRAIN]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    names = [item["name"] for item in container(pod)["env"]]
    assert len(names) == len(set(names)), "a variable that is there twice"
    return {item["name"]: item.get("value") for item in container(pod)["env"]}


def env(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_pods_with_gpus_tolerate_the_taint_of_gpu_nodes() -> None:
    of_stage = pods(gpusPerNode=1)
    assert of_stage[Stage.TRAIN]["tolerations"] == [GPU_TOLERATION]
    assert "tolerations" not in of_stage[Stage.PREPARE]
    assert "tolerations" not in train_pod(gpusPerNode=0)


def test_what_people_tolerate_is_kept() -> None:
    other = {"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}
    template = {"tolerations": [other, GPU_TOLERATION]}
    assert train_pod(template=template)["tolerations"] == [other, GPU_TOLERATION]


def test_a_taint_is_named_after_each_device() -> None:
    pod = train_pod(**NODES, network={"resource": "vpc.amazonaws.com/efa"})
    assert pod["tolerations"] == [GPU_TOLERATION, {"key": "vpc.amazonaws.com/efa", "operator": "Exists"}]


def test_what_the_operator_was_installed_with_applies_to_pods_with_gpus() -> None:
    reserved = {"key": "reserved", "operator": "Equal", "value": "gpu"}
    installed = replace(ENVIRONMENT, gpu_runtime_class="nvidia", gpu_tolerations=(reserved,))
    of_stage = pods(installed, gpusPerNode=1)
    assert of_stage[Stage.TRAIN]["runtimeClassName"] == "nvidia"
    assert of_stage[Stage.TRAIN]["tolerations"] == [GPU_TOLERATION, reserved]
    assert not {"runtimeClassName", "tolerations"} & of_stage[Stage.PREPARE].keys()
    assert not {"runtimeClassName", "tolerations"} & train_pod(installed, gpusPerNode=0).keys()
    chosen = pod_placement(PodTemplate.model_validate({"runtimeClassName": "own"}), [GPU], installed, {})
    assert chosen["runtimeClassName"] == "own"


def test_the_template_reaches_pods_as_far_as_it_concerns_them() -> None:
    template = {
        "runtimeClassName": "nvidia",
        "schedulerName": "gangs",
        "nodeSelector": {"pool": "a"},
        "terminationGracePeriodSeconds": 900,
    }
    of_stage = pods(template=template)
    assert template.items() <= of_stage[Stage.TRAIN].items()
    prepare = of_stage[Stage.PREPARE]
    assert prepare["schedulerName"] == "gangs"
    assert not {"runtimeClassName", "nodeSelector"} & prepare.keys()
    assert prepare["terminationGracePeriodSeconds"] < 900


def test_a_slice_is_requested_by_its_name() -> None:
    pod = train_pod(gpuResource="nvidia.com/mig-3g.40gb")
    assert container(pod)["resources"]["limits"] == {"nvidia.com/mig-3g.40gb": "1"}
    assert GPU_TOLERATION in pod["tolerations"]


CLAIMS = [{"name": "gpus", "resourceClaimTemplateName": "two-gpus"}]


def test_gpus_of_another_maker_are_requested_by_their_name() -> None:
    pod = train_pod(gpuResource="amd.com/gpu", gpusPerNode=2)
    assert container(pod)["resources"]["limits"] == {"amd.com/gpu": "2"}
    assert pod["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists"}]
    assert "affinity" not in pod, "what NVIDIA's labels say is of no concern"
    assert train_pod(gpuResource="habana.ai/gaudi")["tolerations"] == [
        {"key": "habana.ai/gaudi", "operator": "Exists"}
    ]


def test_a_part_of_an_amd_gpu_is_on_a_node_that_is_tainted_as_a_gpu_node() -> None:
    tolerations = train_pod(gpuResource="amd.com/cpx_nps4")["tolerations"]
    assert [each["key"] for each in tolerations] == ["amd.com/gpu", "amd.com/cpx_nps4"]


def test_the_installation_says_which_gpus_are_requested_by_default() -> None:
    pod = train_pod(replace(ENVIRONMENT, gpu_resource="nvidia.com/gpu.shared"))
    assert container(pod)["resources"]["limits"] == {"nvidia.com/gpu.shared": "1"}
    assert [each["key"] for each in pod["tolerations"]] == [GPU, "nvidia.com/gpu.shared"]


def test_resource_claims_take_the_place_of_an_extended_resource() -> None:
    of_stage = pods(gpusPerNode=2, template={"resourceClaims": CLAIMS})
    pod = of_stage[Stage.TRAIN]
    assert pod["resourceClaims"] == CLAIMS
    assert container(pod)["resources"]["claims"] == [{"name": "gpus"}]
    assert "limits" not in container(pod)["resources"]
    assert pod["tolerations"] == [GPU_TOLERATION]
    assert "/dev/shm" in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
    assert "resourceClaims" not in of_stage[Stage.PREPARE]


def test_claims_may_come_beside_gpus_that_are_named() -> None:
    resources = container(train_pod(gpuResource=GPU, template={"resourceClaims": CLAIMS}))["resources"]
    assert (resources["limits"], resources["claims"]) == ({GPU: "1"}, [{"name": "gpus"}])


def test_an_evaluation_has_the_same_settings() -> None:
    compute = {
        "gpuResource": "nvidia.com/mig-1g.10gb",
        "env": env(NCCL_DEBUG="INFO"),
        "cacheVolume": {"claimName": "caches"},
        "template": {"runtimeClassName": "nvidia", "terminationGracePeriodSeconds": 45},
    }
    run = EvalRun.parse(eval_run(compute=compute))
    tuned = fine_tune_job()
    artifact = {"uri": f"pvc://artifacts/sha256/{'a' * 64}", "digest": DIGEST, "sizeBytes": 7}
    tuned["status"] = {"phase": "Succeeded", "artifact": artifact, "resolved": {"baseModelRevision": "r"}}
    resolved = resolve_evaluation(run, SideSources({"expenses": FineTuneJob.parse(tuned)}))
    assert isinstance(resolved, ResolvedEvaluation)
    inputs = Inputs(spec="", image="trainer:1", started=START, config=resolved.config, ca_bundle="")
    pod = build_evaluate_job(run, inputs, 1, ENVIRONMENT)["spec"]["template"]["spec"]
    assert container(pod)["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": "1"}
    assert GPU_TOLERATION in pod["tolerations"]
    assert (pod["runtimeClassName"], pod["terminationGracePeriodSeconds"]) == ("nvidia", 45)
    assert variables(pod)["NCCL_DEBUG"] == "INFO"
    assert variables(pod)["TUNESMITH_MODEL_CACHE"] == "/mnt/tunesmith/cache/huggingface/hub"


def test_variables_of_people_replace_defaults() -> None:
    of_stage = pods(env=env(OMP_NUM_THREADS="4", NCCL_DEBUG="INFO"))
    values = variables(of_stage[Stage.TRAIN])
    assert (values["OMP_NUM_THREADS"], values["NCCL_DEBUG"]) == ("4", "INFO")
    assert "TUNESMITH_CPUS" not in values, "the launcher would divide the threads"
    assert "NCCL_DEBUG" not in variables(of_stage[Stage.PREPARE])


def test_network_devices_are_requested_beside_gpus() -> None:
    of_stage = pods(**NODES, network=NETWORK)
    assert container(of_stage[Stage.TRAIN])["resources"]["limits"] == {
        GPU: "8",
        "rdma/hca_shared_devices_a": "2",
    }
    assert "limits" not in container(of_stage[Stage.PREPARE])["resources"]
    security = container(of_stage[Stage.TRAIN])["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_capability_to_lock_memory_is_opt_in() -> None:
    of_stage = pods(**NODES, network=NETWORK | {"ipcLock": True})
    trainer = container(of_stage[Stage.TRAIN])
    assert trainer["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["IPC_LOCK", "SETGID", "SETUID"],
    }
    assert trainer["securityContext"]["allowPrivilegeEscalation"] is False
    assert trainer["command"][-3:] == ["-m", "tunesmith_trainer", "train"]
    assert trainer["command"][: len(KEEP_IPC_LOCK)] == list(KEEP_IPC_LOCK)
    prepare = container(of_stage[Stage.PREPARE])
    assert prepare["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert prepare["command"][0] == "python"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the container runtime's part")
def test_the_trainer_may_lock_memory_and_nothing_else() -> None:
    """The container's first process as a runtime starts it: root, no new privileges, three capabilities."""
    runtime = [
        "setpriv",
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all,+ipc_lock,+setgid,+setuid",
    ]
    groups = ["--groups=10001"]
    script = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm)' /proc/self/status"
    command = [*runtime, *groups, *KEEP_IPC_LOCK, "sh", "-c", script]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["0"] * 4
    assert "10001" in status["Groups"].split()
    only_ipc_lock = f"{1 << 14:016x}"
    assert (status["CapEff"], status["CapPrm"]) == (only_ipc_lock, only_ipc_lock)
    # What a capability in the security context of another user comes to.
    plain = [*runtime, "--reuid=10001", "--regid=0", "--clear-groups", "sh", "-c", script]
    assert f"CapEff:\t{0:016x}" in subprocess.run(plain, check=True, capture_output=True, text=True).stdout


def test_a_claim_for_models_is_writable_in_training_alone() -> None:
    of_stage = pods(cacheVolume={"claimName": "caches", "subPath": "team-a"})
    pod = of_stage[Stage.TRAIN]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "cache")
    assert volume == {"name": "cache", "persistentVolumeClaim": {"claimName": "caches"}}
    (mount,) = (mount for mount in container(pod)["volumeMounts"] if mount["name"] == "cache")
    assert mount == {"name": "cache", "mountPath": "/mnt/tunesmith/cache", "subPath": "team-a"}
    assert Path(variables(pod)["TUNESMITH_MODEL_CACHE"]).is_relative_to(mount["mountPath"])
    assert "TUNESMITH_MODEL_CACHE" not in variables(of_stage[Stage.PREPARE])
