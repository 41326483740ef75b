"""Objects that the pods of a stage refer to, and what was observed of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith_contract.uris import parse_uri_or_none

_KINDS = {"pvc": "PersistentVolumeClaim", "configmap": "ConfigMap", "secret": "Secret"}


@dataclass(frozen=True, slots=True)
class References:
    """Objects that the pods of a stage refer to, with the fields in which people wrote them.

    Attributes:
        namespace: where all of them have to be.
        fields: ``pvc://name``, ``configmap://name`` or ``secret://name`` to the field's path.
        missing_config_maps: ConfigMaps that were looked for and do not exist; ``name/key`` where only a key is missing.
        mount_failures: messages of nodes about volumes that they can't mount.
        creation_failures: messages about pods that a Job could not create, by the Job's name.
    """

    namespace: str
    fields: Mapping[str, str]
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()
    creation_failures: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        namespace: str,
        uris: Mapping[str, str | None],
        secrets: Mapping[str, str | None],
        missing_config_maps: tuple[str, ...] = (),
        mount_failures: tuple[str, ...] = (),
        creation_failures: Mapping[str, str] | None = None,
    ) -> "References":
        """From field paths to the URIs and Secret names that are written there; the first mention counts."""
        named = [
            (f"{parsed.scheme}://{parsed.name}", path)
            for path, uri in uris.items()
            if uri and (parsed := parse_uri_or_none(uri))
        ]
        named += [(f"secret://{name}", path) for path, name in secrets.items() if name]
        fields = dict(reversed(named))
        return cls(namespace, fields, missing_config_maps, mount_failures, creation_failures or {})

    def field_of(self, scheme: str, name: str) -> str:
        """Path of the field that names an object."""
        return self.fields.get(f"{scheme}://{name}", "the spec")

    def describe_missing(self, scheme: str, name: str) -> str:
        """A sentence that names the missing object, or its missing key as ``name/key``, and the field to correct."""
        name, _, key = name.partition("/")
        field = self.field_of(scheme, name)
        if key:
            return (
                f'{_KINDS[scheme]} "{name}" in namespace {self.namespace} has no key "{key}": '
                f"add it, or correct {field}."
            )
        return (
            f'{_KINDS[scheme]} "{name}" does not exist in namespace {self.namespace}: '
            f"create it, or correct {field}."
        )
