"""Node affinity: pods with GPUs off nodes whose driver or GPU their image can't use, others off nodes with GPUs.

All requirements of the first are of the kind NotIn, which nodes without the label meet: what a node does not say is
checked in the pod. Autoscalers read them, too, and add no machine that would be of no use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.shared_rules.gpus import find_product, minimum_branch

from .environment import GPUNeeds

#: Labels of NVIDIA's GPU feature discovery, newer name first: major version of the driver, and of the newest CUDA that
#: it runs; of the GPU's compute capability, and of its family.
DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
CUDA_LABELS = ("nvidia.com/cuda.runtime-version.major", "nvidia.com/cuda.runtime.major")
CAPABILITY_LABELS = ("nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor")
FAMILY_LABEL = "nvidia.com/gpu.family"
#: Labels with the name of the GPU: of Google Kubernetes Engine, Karpenter on AWS, and Amazon EKS.
GKE_LABEL = "cloud.google.com/gke-accelerator"
AWS_LABELS = ("karpenter.k8s.aws/instance-gpu-name", "eks.amazonaws.com/instance-gpu-name")

#: Branches of NVIDIA's driver for Linux since 2018.
_BRANCHES = (
    390, 396, 410, 415, 418, 430, 435, 440, 450, 455, 460, 465, 470, 495, 510, 515, 520, 525, 530, 535, 545, 550, 555,
    560, 565, 570, 575,
)  # fmt: skip

#: Lowest compute capability of a family of GPUs, as feature discovery names it.
FAMILIES = {
    "kepler": (3, 0), "maxwell": (5, 0), "pascal": (6, 0), "volta": (7, 0), "turing": (7, 5), "ampere": (8, 0),
    "ada-lovelace": (8, 9), "hopper": (9, 0), "blackwell": (10, 0),
}  # fmt: skip

#: GPUs that clouds offer and that can't train.
OLD_CLOUD_GPUS = ("k80", "m60", "p100", "p4", "t4", "t4g", "v100")

#: Labels that nodes with GPUs have, by device plugins, feature discovery and clouds.
_GPU_NODE_LABELS = (
    "nvidia.com/gpu.present",
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "gpu.intel.com/product",
    GKE_LABEL,
    *AWS_LABELS,
    "kubernetes.azure.com/accelerator",
)


def usable_node_requirements(needs: GPUNeeds) -> list[dict[str, Any]]:
    """Match expressions for nodes on which an image can use the GPUs."""
    least = minimum_branch(needs.cuda) if needs.cuda else 0
    majors = [str(major) for major in range(3, needs.capability[0])]
    # One requirement compares one label, so the family tells 7.0 from 7.5.
    families = [name for name, capability in FAMILIES.items() if capability < needs.capability]
    products = {name: find_product(name) for name in OLD_CLOUD_GPUS}
    clouds = [name for name, product in products.items() if product and product.capability < needs.capability]
    excluded = {
        **{label: [str(branch) for branch in _BRANCHES if branch < least] for label in DRIVER_LABELS},
        CAPABILITY_LABELS[0]: majors,
        FAMILY_LABEL: families,
        GKE_LABEL: [f"nvidia-tesla-{name}" for name in clouds],
        **dict.fromkeys(AWS_LABELS, clouds),
    }
    return [{"key": key, "operator": "NotIn", "values": values} for key, values in excluded.items() if values]


def with_requirements(
    affinity: Mapping[str, Any] | None, requirements: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Affinity of a pod, as written, on nodes that meet the requirements as well: each of its terms has them."""
    nodes = (affinity or {}).get("nodeAffinity", {})
    written = nodes.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
    terms = [
        {**term, "matchExpressions": [*term.get("matchExpressions", ()), *requirements]} for term in written
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {**(affinity or {}), "nodeAffinity": {**nodes, **required}}


def off_gpu_nodes(affinity: Mapping[str, Any] | None) -> dict[str, Any]:
    """Affinity of a pod, as written, that prefers nodes without GPUs; where there are no others, they will do."""
    nodes = (affinity or {}).get("nodeAffinity", {})
    preference = {
        "matchExpressions": [{"key": label, "operator": "DoesNotExist"} for label in _GPU_NODE_LABELS]
    }
    preferred = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": preference}]
    }
    return {**(affinity or {}), "nodeAffinity": {**nodes, **preferred}}
