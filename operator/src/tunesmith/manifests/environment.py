"""Settings of the operator's installation that built objects need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.api.pod_template import PodTemplate
from tunesmith_contract.shared_rules.gpus import BFLOAT16_CAPABILITY, ENGINE_CAPABILITY

from .container_resources import LimitRules
from .gpu_requests import GPUs, choose_gpus
from .outbound import Outbound


@dataclass(frozen=True, slots=True)
class GPUNeeds:
    """Needs of an image of the GPUs that it runs on.

    Attributes:
        image: what the image is called in messages.
        capability: lowest compute capability that it can use.
        cuda: major version of CUDA that it is built for; None: unknown, so that drivers are not compared.
    """

    image: str
    capability: tuple[int, int]
    cuda: int | None


@dataclass(frozen=True, slots=True)
class ServingNetwork:
    """Sources that the NetworkPolicy of serving pods admits, as NetworkPolicyPeers; empty: none.

    Attributes:
        clients: sources of requests, beside the other pods of the AdapterDeployment.
        monitoring: sources that read metrics.
    """

    clients: tuple[Mapping[str, Any], ...] = ()
    monitoring: tuple[Mapping[str, Any], ...] = ()


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
        serving_gpu_cuda: major version of CUDA that the default serving image for GPUs is built for.
        gpu_runtime_class: default RuntimeClass of pods with GPUs; empty: that of the node.
        gpu_tolerations: tolerations of all pods with GPUs, beside that of the taint ``nvidia.com/gpu``.
        gpu_resource: extended resource of GPUs where no resource names one.
        limit_rules: limits that the containers of all pods must have.
        traces_endpoint: default endpoint of serving pods for traces; empty: none.
        traces_ratio: default share of requests that are recorded in traces.
        serving_network: who may reach serving pods; None: no NetworkPolicy is made for them.
        assigned_ids: namespaces assign users and file system groups to pods, as on OpenShift, and refuse others.
        outbound: what containers need to reach addresses outside the cluster, below what a resource says.
        term: number of times that the operator's lease changed hands; later leaders have higher ones.
    """

    trainer_image: str
    serving_image: str
    operator_url: str
    ca_bundle: str
    serving_gpu_image: str = ""
    lost_pod_seconds: float = 300.0
    trainer_cuda: int = 13
    serving_gpu_cuda: int = 13
    gpu_runtime_class: str = ""
    gpu_tolerations: tuple[Mapping[str, Any], ...] = ()
    gpu_resource: str = GPU_RESOURCE
    limit_rules: LimitRules = field(default_factory=LimitRules)
    term: int = 0
    serving_network: ServingNetwork | None = None
    traces_endpoint: str = ""
    traces_ratio: str = "0.01"
    assigned_ids: bool = False
    outbound: Outbound = field(default_factory=Outbound)

    def gpus(self, count: int, written: str | None, template: PodTemplate | None) -> GPUs:
        """GPUs of a container, with this ``gpuResource`` and these pod settings."""
        return choose_gpus(count, written, template, self.gpu_resource)

    def trainer_needs(self, image: str) -> GPUNeeds:
        """Needs of a trainer image; the CUDA of images other than the default one is unknown."""
        cuda = self.trainer_cuda if image == self.trainer_image else None
        return GPUNeeds("trainer image", BFLOAT16_CAPABILITY, cuda)

    def serving_needs(self, image: str) -> GPUNeeds:
        """Needs of a serving image; the CUDA of images other than the default one for GPUs is unknown."""
        cuda = self.serving_gpu_cuda if image == self.serving_gpu_image else None
        return GPUNeeds("serving image", ENGINE_CAPABILITY, cuda)
