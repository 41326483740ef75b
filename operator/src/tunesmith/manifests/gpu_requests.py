"""GPUs that a container asks for: by an extended resource of a device plugin, or by resource claims (DRA)."""

from dataclasses import dataclass

from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.api.pod_template import PodTemplate

NVIDIA, AMD = "nvidia.com/", "amd.com/"


@dataclass(frozen=True, slots=True)
class GPUs:
    """GPUs of a container.

    Attributes:
        count: number of GPUs that its processes use.
        resource: extended resource that stands for one of them; empty: they come with the claims.
        claims: names of the pod's resource claims.
    """

    count: int = 0
    resource: str = GPU_RESOURCE
    claims: tuple[str, ...] = ()

    @property
    def devices(self) -> dict[str, int]:
        """Extended resources of the container."""
        return {self.resource: self.count} if self.count and self.resource else {}

    @property
    def taints(self) -> tuple[str, ...]:
        """Keys of the taints that nodes with such GPUs often have.

        Nodes with slices or shares of GPUs are tainted as those with whole ones.
        """
        if not self.count:
            return ()
        if not self.resource:
            return (GPU_RESOURCE,)
        vendor = next((vendor for vendor in (NVIDIA, AMD) if self.resource.startswith(vendor)), None)
        return tuple(dict.fromkeys((f"{vendor}gpu", self.resource) if vendor else (self.resource,)))

    @property
    def may_be_nvidia(self) -> bool:
        """True unless the resource is that of another maker."""
        return not self.resource or self.resource.startswith(NVIDIA)


NO_GPUS = GPUs()


def choose_gpus(count: int, written: str | None, template: PodTemplate | None, default: str) -> GPUs:
    """GPUs of a container by what people wrote.

    Args:
        count: number of GPUs.
        written: ``gpuResource``; None: it is not set.
        template: pod settings, which may name resource claims.
        default: the resource that the operator was installed with.
    """
    if count == 0:
        return NO_GPUS
    claims = tuple(claim.name for claim in (template and template.resource_claims) or ())
    return GPUs(count, written or ("" if claims else default), claims)
