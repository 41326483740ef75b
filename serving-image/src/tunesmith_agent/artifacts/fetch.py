"""The folder of an artifact: on a mounted volume, or fetched to the pod's own disk, which the engine shares."""

import shutil
from pathlib import Path

from tunesmith_contract.layout import SecretRole
from tunesmith_contract.uris import MOUNTED, InvalidUri, parse_uri

from .verify import ArtifactInvalid, ArtifactUnreadable, locate_artifact

#: What no second look will change; a key or a right may be mended while the pod runs.
_FINAL = frozenset({"ArtifactChanged", "InvalidManifest"})


class ArtifactFolders:
    """Finds artifacts for the engine.

    Args:
        mount_root: where volumes are mounted.
        secrets: where Secrets are mounted, a folder for each role.
        scratch: where fetched artifacts lie, by their digests.
    """

    def __init__(self, mount_root: Path, secrets: Path, scratch: Path) -> None:
        self._mount_root = mount_root
        self._secrets = secrets
        self._scratch = scratch

    def find(self, uri: str, digest: str) -> Path:
        """The folder of an artifact, fetched and verified first where it is not mounted.

        Blocks. An interrupted download goes on where it stopped.

        Raises:
            ArtifactInvalid: the URI names nothing, or something else than the digest says.
            ArtifactUnreadable: it can't be had at the moment.
        """
        try:
            parsed = parse_uri(uri)
        except InvalidUri as error:
            raise ArtifactInvalid("InvalidUri", str(error)) from error
        if parsed.scheme in MOUNTED:
            return locate_artifact(uri, self._mount_root)
        # Clients of stores take memory and seconds: only for who uses them.
        from tunesmith_storage.artifacts import fetch_artifact
        from tunesmith_storage.errors import StorageError
        from tunesmith_storage.stores import open_remote

        try:
            remote = open_remote(parsed, [SecretRole.ARTIFACTS], self._secrets)
            return fetch_artifact(remote, digest, self._scratch)
        except StorageError as error:
            if error.reason in _FINAL:
                raise ArtifactInvalid(error.reason, error.message) from error
            raise ArtifactUnreadable(error.message, error.reason) from error
        except OSError as error:
            raise ArtifactUnreadable(f"{self._scratch}: {error.strerror}", "ScratchFull") from error

    def forget(self, digest: str) -> None:
        """Remove a fetched artifact that nobody is served by any more."""
        shutil.rmtree(self._scratch / digest.replace(":", "-"), ignore_errors=True)
