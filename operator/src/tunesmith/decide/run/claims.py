"""Rules for PersistentVolumeClaims that several pods mount, by their access modes."""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.api.pod_settings import CacheVolume
from tunesmith_contract.uris import Scheme, StorageUri

CACHE_FIELD = "spec.compute.cacheVolume.claimName"

_WRITABLE = frozenset({"ReadWriteMany"})
_READABLE = frozenset({"ReadWriteMany", "ReadOnlyMany"})
#: One pod at a time, wherever it runs.
_ONE_POD = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class SharedClaim:
    """Claim that several pods mount.

    Attributes:
        modes: its access modes.
        is_written: the pods write to it.
    """

    name: str
    modes: tuple[str, ...]
    is_written: bool

    @property
    def reaches_nodes(self) -> bool:
        """True if pods on several nodes can mount it."""
        return bool((_WRITABLE if self.is_written else _READABLE) & set(self.modes))

    @property
    def reaches_pods(self) -> bool:
        """True if several pods on one node can mount it."""
        return any(mode != _ONE_POD for mode in self.modes)

    def describe(self) -> str:
        """Its name and access modes, as messages begin."""
        return f'PersistentVolumeClaim "{self.name}" is {", ".join(self.modes)}'


def claim_names(uris: Iterable[StorageUri]) -> tuple[str, ...]:
    """Names of the claims that URIs name, each once."""
    return tuple(dict.fromkeys(uri.name for uri in uris if uri.scheme is Scheme.PVC))


def cache_uri(cache: CacheVolume | None) -> str | None:
    """URI of the claim with caches, if there is one."""
    return f"{Scheme.PVC}://{cache.claim_name}" if cache else None
