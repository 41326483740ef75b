"""GPUs that pods may get: what is known of them before one is requested, and what is said where nothing is."""

from dataclasses import replace
from typing import Any

from simulation.simulated_cluster import ENVIRONMENT, fine_tune_job

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.fit.gpus import ReachableGPUs
from tunesmith.decide.fit.reachable_gpus import GPURequest, find_reachable_gpus
from tunesmith.manifests.environment import GPUNeeds

GIB = 2**30
DRIVER = "nvidia.com/cuda.driver-version.full"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}


def node(labels: dict[str, str], name: str = "n", resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {resource: "8"}}}


def requested(**settings: Any) -> GPURequest:
    compute = FineTuneJob.parse(fine_tune_job(compute={"gpusPerNode": 1} | settings)).spec.compute
    gpus = ENVIRONMENT.gpus(compute.gpus_per_node, compute.gpu_resource, compute.template)
    return GPURequest(gpus.count, gpus.resource, compute.gpu_memory, compute.template, "compute")


def reach(*nodes: dict[str, Any], cuda: int | None = 13, **compute: Any) -> ReachableGPUs:
    return find_reachable_gpus(requested(**compute), nodes, GPUNeeds("trainer image", (8, 0), cuda))


def test_nodes_that_can_not_train_are_left_out() -> None:
    old = node(H100 | {DRIVER: "535.1", "nvidia.com/gpu.memory": "24576"}, "old")
    gpus = reach(node(H100), old)
    assert gpus.obstacle is None
    assert (gpus.memory, gpus.largest) == (81559 * 2**20, 81559 * 2**20)
    assert gpus.left_out == (
        "The pods are kept off nodes: driver 535.1, and CUDA 13 of the trainer image needs 580.65.06 or newer (old)."
    )


def test_no_node_that_can_be_used_is_said_with_what_to_do() -> None:
    gpus = reach(node(H100 | {DRIVER: "535.274.02"}, "gpu-1"))
    assert gpus.obstacle is not None
    assert gpus.obstacle.reason == "DriverTooOld"
    assert gpus.obstacle.message == (
        "No node that the pods may be scheduled to can be used: driver 535.274.02, and CUDA 13 of the trainer image "
        "needs 580.65.06 or newer (gpu-1). Update the driver of the nodes, install the trainer image for an older CUDA "
        "(docs/gpu.md), name other nodes in compute.template.nodeSelector, or write compute.gpuMemory, such as 24Gi, "
        "if an autoscaler adds other nodes."
    )
    assert reach(node(H100 | {DRIVER: "535.274.02"}), cuda=12).obstacle is None
    assert reach(node(H100 | {DRIVER: "535.274.02"}), cuda=None).obstacle is None


def test_a_gpu_without_bfloat16_is_refused() -> None:
    obstacle = reach(node({"nvidia.com/gpu.product": "Tesla-T4"}, "gpu-1")).obstacle
    assert obstacle is not None
    assert obstacle.reason == "UnsupportedGPU"
    assert "Tesla-T4 has compute capability 7.5, and the trainer image needs 8.0 or higher (gpu-1)" in (
        obstacle.message
    )


def test_memory_that_is_written_speaks_for_nodes_that_are_to_come() -> None:
    gpus = reach(node({"nvidia.com/gpu.product": "Tesla-T4"}), gpuMemory="80Gi")
    assert gpus.obstacle is None
    assert gpus.memory == 80 * GIB
    assert gpus.note == ""


def test_without_a_node_the_memory_is_to_be_written() -> None:
    gpus = reach(gpusPerNode=8)
    assert gpus.memory is None
    assert gpus.obstacle is None
    assert "no node with 8 nvidia.com/gpu that the pods may be scheduled to is there" in gpus.note
    assert "write compute.gpuMemory, such as 24Gi" in gpus.note


def test_without_a_label_the_memory_is_to_be_written() -> None:
    gpus = reach(node({}))
    assert "no label of their nodes says it: write compute.gpuMemory, such as 24Gi" in gpus.note


def test_a_node_selector_describes_a_node_that_is_to_come() -> None:
    selector = {"nodeSelector": {"karpenter.k8s.aws/instance-gpu-name": "l4"}}
    assert reach(template=selector).memory == 22.5 * GIB
    old = reach(template={"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-tesla-v100"}})
    assert old.obstacle is not None
    assert "(compute.template.nodeSelector)" in old.obstacle.message
    pool = reach(template={"nodeSelector": {"pool": "a"}})
    assert pool.memory is None
    assert "that the pods may be scheduled to is there" in pool.note


def test_a_shared_gpu_is_said_to_be_shared() -> None:
    gpus = reach(node(H100 | {"nvidia.com/gpu.replicas": "4"}))
    assert gpus.memory == 81559 * 2**20 // 4
    assert gpus.note == "Up to 4 pods share a GPU; each is taken to use an equal part of its memory."


def test_tolerations_of_the_installation_count() -> None:
    taint = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    tainted = node(H100) | {"spec": {"taints": [taint]}}
    needs = GPUNeeds("trainer image", (8, 0), 13)
    assert find_reachable_gpus(requested(), [tainted], needs).memory is None
    tolerations = [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]
    assert find_reachable_gpus(requested(), [tainted], needs, tolerations).memory == 81559 * 2**20


def test_slices_are_found_by_their_resource() -> None:
    mig = "nvidia.com/mig-3g.40gb"
    gpus = reach(node(H100 | {f"{mig}.memory": "40192"}, resource=mig), gpuResource=mig)
    assert gpus.memory == 40192 * 2**20
    assert reach(node(H100), gpuResource=mig).memory is None


def test_without_gpus_nothing_is_known_and_nothing_is_wrong() -> None:
    assert reach(node(H100), gpusPerNode=0) == ReachableGPUs()


def test_gpus_of_another_maker_are_found_on_their_nodes() -> None:
    amd = node({"amd.com/gpu.vram": "192G"}, "mi300x", resource="amd.com/gpu")
    gpus = reach(node(H100), amd, gpuResource="amd.com/gpu")
    assert (gpus.memory, gpus.obstacle, gpus.product) == (192 * GIB, None, None)


def test_the_default_of_the_installation_is_asked_for_where_nothing_is_written() -> None:
    installed = replace(ENVIRONMENT, gpu_resource="amd.com/gpu")
    assert installed.gpus(1, None, None).resource == "amd.com/gpu"
    assert installed.gpus(1, "nvidia.com/gpu", None).resource == "nvidia.com/gpu"


def test_gpus_of_resource_claims_have_the_memory_that_is_written() -> None:
    claims: dict[str, Any] = {
        "template": {"resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "two-gpus"}]}
    }
    unknown = reach(node(H100), **claims)
    assert (unknown.memory, unknown.obstacle) == (None, None)
    assert unknown.note == (
        "The memory of the GPUs is unknown, because resource claims do not say it: write compute.gpuMemory, such as "
        "24Gi, to have it compared."
    )
    assert reach(node(H100), **claims, gpuMemory="40Gi").memory == 40 * GIB
    assert reach(node(H100), **claims, gpuResource="nvidia.com/gpu").memory == 81559 * 2**20
