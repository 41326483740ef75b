"""Places that a manifest names, on this computer: local paths, folders in place of claims, remote stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.layout import COMMIT_FILE, MANIFEST_FILE, checkpoint_step, is_checkpoint
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri
from tunesmith_data.command.host_files import host_uri, model_uri
from tunesmith_data.failures import UserError


@dataclass(frozen=True, slots=True)
class Places:
    """Resolution of the places in a manifest.

    Attributes:
        folder: folder of the manifest, from which relative paths start.
        mounts: folders that stand for PersistentVolumeClaims, by the claim's name.
    """

    folder: Path
    mounts: Mapping[str, Path]

    def rows(self, written: str) -> str:
        """URI of rows that are named by a URI or by a path.

        Raises:
            UserError: there is no such file, its claim is not mounted, or it is a URI of no known form.
        """
        path = self._local(written)
        if path is None:
            return written
        if "*" not in path.name and not path.exists():
            raise UserError("DatasetNotFound", f"{path} does not exist: write the path of a file of rows")
        return host_uri(path) + ("/" if written.endswith("/") and not path.is_dir() else "")

    def folder_uri(self, written: str) -> str:
        """URI of an artifact or of another folder that is named by a URI or by a path.

        Raises:
            UserError: there is no such folder, its claim is not mounted, or it is a URI of no known form.
        """
        path = self._local(written)
        if path is None:
            return written
        if not path.exists():
            raise UserError("FolderNotFound", f"{path} does not exist: write the path of a folder")
        return host_uri(path).rstrip("/")

    def is_checkpoint(self, written: str) -> bool:
        """True for a checkpoint of a job, by its files where it is on this computer, otherwise by its name.

        Raises:
            UserError: its claim is not mounted, or it is a URI of no known form.
        """
        path = self._local(written)
        if path is None:
            return is_checkpoint(parse_uri(written))
        if (path / MANIFEST_FILE).is_file():
            return False
        return (path / COMMIT_FILE).is_file() or checkpoint_step(path.name) is not None

    def model(self, written: str) -> str:
        """URI of a model that is named by a URI, by a path, or by its name on the hub.

        Raises:
            UserError: it is none of these, its claim is not mounted, or it is a URI of no known form.
        """
        path = self._local(written)
        if path is None:
            return written
        return host_uri(path).rstrip("/") if path.is_dir() else model_uri(written)

    def _local(self, written: str) -> Path | None:
        """Local path of a place; None for what is fetched.

        Raises:
            UserError: its claim is not mounted, or it is a URI of no known form.
        """
        if "://" not in written:
            return self.folder / Path(written).expanduser()
        try:
            uri = parse_uri(written)
        except InvalidUri as error:
            raise UserError(
                "InvalidUri", f"{error}; or the path of a file or folder, without a scheme"
            ) from None
        if uri.scheme is Scheme.CONFIGMAP:
            message = f"{written} is in a cluster: write its rows into a file, and the path of that file"
            raise UserError("NotOnThisComputer", message)
        if uri.scheme is not Scheme.PVC:
            return None
        if uri.name not in self.mounts:
            message = f"{written} is on a claim: add --mount {uri.name}=FOLDER, or write the path of a file"
            raise UserError("NotOnThisComputer", message)
        return self.mounts[uri.name] / uri.path
