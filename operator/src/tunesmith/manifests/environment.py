"""Settings of the operator's installation that built objects need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings of the installation.

    Attributes:
        trainer_image: default image of prepare, train and evaluation pods.
        serving_image: default image of serving pods (engine and agent) without GPUs.
        operator_url: ``https://service.namespace.svc:port`` at which pods reach the operator.
        ca_bundle: PEM of the authority that signed the operator's certificate.
        serving_gpu_image: default image of serving pods with GPUs; empty: there is none.
        lost_pod_seconds: how long beyond its grace period a pod may take to end: its node may have gone silent.
        trainer_cuda: major version of CUDA that the default trainer image is built for.
        gpu_runtime_class: default RuntimeClass of pods with GPUs; empty: that of the node.
        gpu_tolerations: tolerations of all pods with GPUs, beside that of the taint ``nvidia.com/gpu``.
    """

    trainer_image: str
    serving_image: str
    operator_url: str
    ca_bundle: str
    serving_gpu_image: str = ""
    lost_pod_seconds: float = 300.0
    trainer_cuda: int = 13
    gpu_runtime_class: str = ""
    gpu_tolerations: tuple[Mapping[str, Any], ...] = ()

    def cuda_of(self, image: str) -> int | None:
        """Major version of CUDA that a trainer image is built for; None for images other than the default one."""
        return self.trainer_cuda if image == self.trainer_image else None
