"""PersistentVolumeClaims that the URIs and caches of a run name."""

from collections.abc import Iterable

from tunesmith.api.pod_settings import CacheVolume
from tunesmith.api.pod_template import PodTemplate
from tunesmith_contract.uris import Scheme, StorageUri

CACHE_FIELD = "spec.compute.cacheVolume.claimName"
TEMPLATE_FIELD = "spec.compute.template"
DATA_TEMPLATE_FIELD = "spec.dataset.compute.template"


def claim_names(uris: Iterable[StorageUri]) -> tuple[str, ...]:
    """Names of the claims that URIs name, each once."""
    return tuple(dict.fromkeys(uri.name for uri in uris if uri.scheme is Scheme.PVC))


def cache_uri(cache: CacheVolume | None) -> str | None:
    """URI of the claim with caches, if there is one."""
    return f"{Scheme.PVC}://{cache.claim_name}" if cache else None


def volume_fields(template: PodTemplate | None, path: str, written: bool | None = None) -> dict[str, str]:
    """URIs of the claims that are volumes of a pod template, by the field that names each.

    Args:
        path: path of the template.
        written: only those that pods may write to, or only those that they may not; None: all.
    """
    volumes = (template.volumes if template else None) or ()
    claims = {volume.name: volume.persistent_volume_claim for volume in volumes}
    return {
        f"{path}.volumes[{name}]": f"{Scheme.PVC}://{claim.claim_name}"
        for name, claim in claims.items()
        if claim and written in (None, not claim.read_only)
    }
