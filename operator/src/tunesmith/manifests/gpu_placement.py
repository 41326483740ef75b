"""Node affinity that keeps pods with GPUs off nodes whose driver or GPU the trainer can't use.

All requirements are of the kind NotIn, which nodes without the label meet: what a node does not say is checked in the
pod. Autoscalers read them, too, and add no machine that would be of no use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.shared_rules.gpus import BFLOAT16_CAPABILITY, minimum_branch

#: Labels of NVIDIA's GPU feature discovery, newer name first: major version of the driver, and of the newest CUDA that
#: it runs; and of the GPU's compute capability.
DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
CUDA_LABELS = ("nvidia.com/cuda.runtime-version.major", "nvidia.com/cuda.runtime.major")
CAPABILITY_LABELS = ("nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor")
#: Labels with the name of the GPU: of Google Kubernetes Engine, Karpenter on AWS, and Amazon EKS.
GKE_LABEL = "cloud.google.com/gke-accelerator"
AWS_LABELS = ("karpenter.k8s.aws/instance-gpu-name", "eks.amazonaws.com/instance-gpu-name")

#: Branches of NVIDIA's driver for Linux since 2018.
_BRANCHES = (
    390, 396, 410, 415, 418, 430, 435, 440, 450, 455, 460, 465, 470, 495, 510, 515, 520, 525, 530, 535, 545, 550, 555,
    560, 565, 570, 575,
)  # fmt: skip

#: GPUs that clouds offer and that can't train.
OLD_CLOUD_GPUS = ("k80", "m60", "p100", "p4", "t4", "t4g", "v100")


def usable_node_requirements(cuda: int | None) -> list[dict[str, Any]]:
    """Match expressions for nodes on which training and evaluation can run.

    Args:
        cuda: major version of CUDA that the image is built for; None: unknown, so that drivers are not compared.
    """
    least = minimum_branch(cuda) if cuda else 0
    majors = [str(major) for major in range(3, BFLOAT16_CAPABILITY[0])]
    excluded = {
        **{label: [str(branch) for branch in _BRANCHES if branch < least] for label in DRIVER_LABELS},
        CAPABILITY_LABELS[0]: majors,
        GKE_LABEL: [f"nvidia-tesla-{name}" for name in OLD_CLOUD_GPUS],
        **{label: list(OLD_CLOUD_GPUS) for label in AWS_LABELS},
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
