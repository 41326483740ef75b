"""PersistentVolumeClaims that the URIs and caches of a run name."""

from collections.abc import Iterable

from tunesmith.api.pod_settings import CacheVolume
from tunesmith_contract.uris import Scheme, StorageUri

CACHE_FIELD = "spec.compute.cacheVolume.claimName"


def claim_names(uris: Iterable[StorageUri]) -> tuple[str, ...]:
    """Names of the claims that URIs name, each once."""
    return tuple(dict.fromkeys(uri.name for uri in uris if uri.scheme is Scheme.PVC))


def cache_uri(cache: CacheVolume | None) -> str | None:
    """URI of the claim with caches, if there is one."""
    return f"{Scheme.PVC}://{cache.claim_name}" if cache else None
