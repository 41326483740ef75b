"""GPUs of a node by its labels: whole ones, slices and shares; of feature discovery, clouds and Karpenter."""

import pytest

from tunesmith.decide.fit.node_gpus import read_gpu
from tunesmith_contract.shared_rules.gpus import find_product

GIB = 2**30
PRODUCT, MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
GKE = "cloud.google.com/gke-accelerator"
KARPENTER, EKS = "karpenter.k8s.aws/instance-gpu", "eks.amazonaws.com/instance-gpu"
MACHINE = "node.kubernetes.io/instance-type"
H100 = "NVIDIA-H100-80GB-HBM3"


@pytest.mark.parametrize(
    ("labels", "gibibytes"),
    [
        ({MEMORY: "81559", PRODUCT: "NVIDIA-A10"}, 81559 / 1024),
        ({PRODUCT: "NVIDIA-A100-SXM4-80GB"}, 80),
        ({PRODUCT: "NVIDIA-A100-SXM4-40GB"}, 40),
        ({PRODUCT: H100}, 79.6),
        ({PRODUCT: "NVIDIA-GeForce-RTX-4090"}, 24),
        ({GKE: "nvidia-tesla-t4"}, 15),
        ({GKE: "nvidia-l4"}, 22.5),
        ({GKE: "nvidia-h100-80gb"}, 79.6),
        ({GKE: "nvidia-h100-mega-80gb"}, 79.6),
        ({f"{KARPENTER}-name": "a10g", f"{KARPENTER}-memory": "24576"}, 22.5),
        ({f"{KARPENTER}-name": "l4", f"{KARPENTER}-memory": "22888"}, 22888 / 1024),
        ({f"{KARPENTER}-name": "a100", f"{KARPENTER}-memory": "81920"}, 80),
        ({f"{KARPENTER}-name": "a100", f"{KARPENTER}-memory": "40960"}, 40),
        ({f"{KARPENTER}-name": "future", f"{KARPENTER}-memory": "98304"}, 96),
        ({f"{EKS}-name": "h100", f"{EKS}-memory": "81920"}, 79.6),
        ({f"{EKS}-name": "l40s"}, 45),
        ({MACHINE: "g5.xlarge"}, 22.5),
        ({MACHINE: "p5en.48xlarge"}, 140),
        ({MACHINE: "p6-b200.48xlarge"}, 178),
        ({MACHINE: "Standard_NC40ads_H100_v5"}, 79.6),
        ({MACHINE: "Standard_NV6ads_A10_v5"}, None),
        ({MACHINE: "m5.large"}, None),
        ({PRODUCT: "NVIDIA-Future-1"}, None),
        ({}, None),
    ],
)
def test_memory_of_a_whole_gpu(labels: dict[str, str], gibibytes: float | None) -> None:
    assert read_gpu(labels).memory == (
        None if gibibytes is None else pytest.approx(gibibytes * GIB, rel=0.01)
    )


@pytest.mark.parametrize("label", ["", "0", "24Gi", "-1"])
def test_a_label_that_is_no_number_is_ignored(label: str) -> None:
    assert read_gpu({MEMORY: label}).memory is None


@pytest.mark.parametrize(
    ("labels", "resource", "mebibytes"),
    [
        ({PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", MEMORY: "4864"}, "nvidia.com/gpu", 4864),
        ({PRODUCT: "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"}, "nvidia.com/gpu", 0.95 * 40 * 1024),
        ({"nvidia.com/mig-3g.40gb.memory": "40192", MEMORY: "81920"}, "nvidia.com/mig-3g.40gb", 40192),
        ({MEMORY: "81920"}, "nvidia.com/mig-1g.10gb", 0.95 * 10 * 1024),
        (
            {GKE: "nvidia-tesla-a100", "cloud.google.com/gke-gpu-partition-size": "2g.10gb"},
            "nvidia.com/gpu",
            9728,
        ),
    ],
)
def test_a_slice_has_its_own_memory(labels: dict[str, str], resource: str, mebibytes: float) -> None:
    assert read_gpu(labels, resource).memory == pytest.approx(mebibytes * 2**20, rel=0.01)


def test_a_slice_has_its_part_of_the_speed() -> None:
    whole = find_product(H100)
    part = read_gpu({PRODUCT: f"{H100}-MIG-3g.40gb"}).product
    assert whole is not None
    assert part is not None
    assert part.flops == pytest.approx(whole.flops * 3 / 7)


@pytest.mark.parametrize(
    ("labels", "resource"),
    [
        ({PRODUCT: "NVIDIA-L4-SHARED", MEMORY: "23034", "nvidia.com/gpu.replicas": "4"}, "nvidia.com/gpu"),
        ({PRODUCT: "NVIDIA-L4", MEMORY: "23034", "nvidia.com/gpu.replicas": "4"}, "nvidia.com/gpu.shared"),
        (
            {PRODUCT: "NVIDIA-L4", MEMORY: "23034", "cloud.google.com/gke-max-shared-clients-per-gpu": "4"},
            "nvidia.com/gpu",
        ),
    ],
)
def test_pods_that_share_a_gpu_share_its_memory(labels: dict[str, str], resource: str) -> None:
    gpu = read_gpu(labels, resource)
    assert gpu.shared_by == 4
    assert gpu.memory == 23034 * 2**20 // 4


def test_a_gpu_that_is_not_shared_is_whole() -> None:
    gpu = read_gpu(
        {MEMORY: "23034", "nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.sharing-strategy": "none"}
    )
    assert gpu.shared_by == 1
    assert gpu.memory == 23034 * 2**20


def test_measured_capability_goes_before_that_of_the_product() -> None:
    labels = {"nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0", PRODUCT: "NVIDIA-L4"}
    assert read_gpu(labels).capability == (9, 0)
    assert read_gpu({PRODUCT: "NVIDIA-L4"}).capability == (8, 9)
    assert read_gpu({MACHINE: "p3.2xlarge"}).capability == (7, 0)
    assert read_gpu({MACHINE: "p3.2xlarge"}).name == "v100"


AMD_GPU, AMD_MEMORY, DIVISION = "amd.com/gpu", "amd.com/gpu.vram", "amd.com/compute-memory-partition"


@pytest.mark.parametrize(
    ("labels", "resource", "gibibytes"),
    [
        ({AMD_MEMORY: "192G"}, AMD_GPU, 192),
        ({"beta.amd.com/gpu.vram": "64G"}, AMD_GPU, 64),
        ({AMD_MEMORY: "192G", DIVISION: "spx_nps1"}, AMD_GPU, 192),
        ({AMD_MEMORY: "192G", DIVISION: "cpx_nps4"}, AMD_GPU, None),
        ({AMD_MEMORY: "192G"}, "amd.com/cpx_nps4", None),
        ({AMD_MEMORY: "192G", DIVISION: "spx_nps1"}, "amd.com/spx_nps1", 192),
        ({AMD_MEMORY: "plenty"}, AMD_GPU, None),
        ({}, AMD_GPU, None),
        ({AMD_MEMORY: "192G"}, "nvidia.com/gpu", None),
        ({"gpu.intel.com/xe.memory": "49152"}, "gpu.intel.com/xe", 48),
        ({"habana.ai/gaudi.memory": "131072"}, "habana.ai/gaudi", 128),
    ],
)
def test_memory_of_other_makers_gpus(labels: dict[str, str], resource: str, gibibytes: int | None) -> None:
    gpu = read_gpu(labels, resource)
    assert gpu.memory == (None if gibibytes is None else gibibytes * GIB)
    assert gpu.capability is None, "nothing that NVIDIA's rules could refuse"


def test_the_product_of_an_amd_gpu_is_named() -> None:
    assert read_gpu({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, AMD_GPU).name == (
        "AMD_Instinct_MI300X_OAM"
    )
