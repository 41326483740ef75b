"""Files behind URIs: mounted, or fetched to the pod's own disk."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tunesmith_contract.layout import COMMIT_FILE, MANIFEST_FILE, SECRETS_DIR, SecretRole
from tunesmith_contract.run_config import AnyConfig
from tunesmith_contract.uris import (
    MOUNT_ROOT,
    MOUNTED,
    Scheme,
    StorageUri,
    mount_path,
    names_one_file,
    parse_uri,
)
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.rows.data_files import DataFile, data_patterns, describe_names, find_files
from tunesmith_storage.artifacts import fetch_artifact, place_folder
from tunesmith_storage.credentials import load_credentials
from tunesmith_storage.files import (
    describe_files,
    file_digest,
    holds_files,
    open_atomically,
    sync,
    write_atomically,
)
from tunesmith_storage.remote import Remote
from tunesmith_storage.stores import open_remote
from tunesmith_storage.trees import fetch_file, fetch_tree

from .model_cache import fetch_through_cache
from .secret_roles import Roles, roles_of

__all__ = [
    "Storage",
    "describe_files",
    "file_digest",
    "holds_files",
    "link_folder",
    "open_atomically",
    "place_folder",
    "sync",
    "write_atomically",
]

_TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
_WEIGHTS = "*.safetensors"


class Storage:
    """Access to URIs: ``pvc://`` and ``configmap://`` below a mount root, all others fetched to the pod's own disk.

    A Secret opens what is fetched, else the environment: ``HF_TOKEN``, ``AWS_*``, the pod's own identity.

    Args:
        mount_root: the folder that holds the mounted volumes.
        secrets: the folder that holds the mounted Secrets, a folder for each role.
        scratch: folder for fetched files; by default below the folder for temporary files.
        roles: which Secrets open which URI; see ``for_run``.
    """

    def __init__(
        self,
        mount_root: Path = Path(MOUNT_ROOT),
        secrets: Path = Path(SECRETS_DIR),
        scratch: Path | None = None,
        roles: Mapping[str, Roles] | None = None,
    ) -> None:
        self._mount_root = mount_root
        self.secrets = secrets
        self.scratch = scratch or Path(tempfile.gettempdir()) / "tunesmith"
        self._roles = roles or {}

    def for_run(self, config: AnyConfig) -> "Storage":
        """The same storage, which opens each URI of a run with the Secret that the run has for it."""
        return Storage(self._mount_root, self.secrets, self.scratch, roles_of(config))

    def path(self, uri: StorageUri) -> Path:
        """The mounted path of a ``pvc://`` or ``configmap://`` URI.

        Raises:
            InvalidUri: the rest is fetched, not mounted.
        """
        return self._mount_root / mount_path(uri).relative_to(MOUNT_ROOT)

    def dataset_files(self, uri: str) -> list[DataFile]:
        """The files that a data set's URI names: one, those of a folder (``…/``), those that fit a pattern (``…/*``).

        Raises:
            UserError: there is no such file.
            DataError: a folder, or a pattern, without files of rows.
            StorageError: it can't be fetched.
        """
        parsed = parse_uri(uri)
        folder, _, last = parsed.path.rpartition("/")
        if names_one_file(uri):
            return [DataFile(self.dataset_file(uri), last)]
        if "*" not in last:
            folder, last = parsed.path, ""
        return find_files(self._dataset_folder(parsed._replace(path=folder), uri, last) / last, uri)

    def _dataset_folder(self, folder: StorageUri, uri: str, pattern: str) -> Path:
        if folder.scheme in MOUNTED:
            return self.path(folder)
        remote = self.open(folder, self._roles_for(uri, SecretRole.TRAIN), holds_rows=True)
        patterns = [pattern] if pattern else data_patterns()
        fetched = fetch_tree(remote, self.scratch / "data", patterns, holds_rows=True)
        if not any(fetched.iterdir()):
            raise DataError("DatasetNotFound", f"{uri} {describe_names(remote.entries())}")
        return fetched

    def dataset_file(self, uri: str) -> Path:
        """The file that a data set's URI names.

        Raises:
            UserError: there is no such file.
            StorageError: it can't be fetched.
        """
        parsed = parse_uri(uri)
        if parsed.scheme is Scheme.HF:
            return self._fetch_hub_dataset(parsed, self._roles_for(uri, SecretRole.TRAIN))
        if parsed.scheme not in MOUNTED:
            return fetch_file(self._open(parsed, uri, SecretRole.TRAIN), self.scratch / "data")
        path = self.path(parsed)
        if path.is_dir():
            raise UserError(
                "DatasetNotFound", f"{uri} is a folder: end it with a slash to read all its files"
            )
        if not path.is_file():
            raise UserError("DatasetNotFound", f"{uri} does not exist: write the URI of a file of rows")
        return path

    def file_or_folder(self, uri: str) -> Path:
        """The file or folder that a URI names, such as the data of a task; of a bucket's folder the files in it.

        Raises:
            UserError: there is none.
            StorageError: it can't be fetched.
        """
        parsed = parse_uri(uri)
        if parsed.scheme not in MOUNTED:
            remote = self._open(parsed, uri, SecretRole.TRAIN)
            if PurePosixPath(parsed.path).suffix:
                return fetch_file(remote, self.scratch / "data")
            return fetch_tree(remote, self.scratch / "data", ["*"], holds_rows=True)
        path = self.path(parsed)
        if not path.exists():
            raise UserError("DataNotFound", f"{uri} does not exist: write the URI of a file or folder")
        return path

    def model_folder(self, uri: str, *, weights: bool) -> Path:
        """The folder of a base model.

        Without weights only configuration and tokenizer are fetched: from a bucket or registry with the headers of
        the weights, which say their shapes.

        Raises:
            UserError: there is no such folder, or it holds no ``config.json``.
            StorageError: it can't be fetched.
        """
        parsed = parse_uri(uri)
        path = self.path(parsed) if parsed.scheme in MOUNTED else self._fetch_model(parsed, uri, weights)
        if not path.is_dir():
            raise UserError("ModelNotFound", f"{uri} is not a folder: write the URI of a model's folder")
        if not (path / "config.json").is_file():
            raise UserError("ModelNotFound", f"{uri} has no config.json: write the URI of a model's folder")
        return path

    def artifact_folder(self, uri: str, digest: str | None = None) -> Path:
        """Folder of an artifact; a fetched one is verified against its manifest.

        Args:
            digest: expected digest of a fetched folder.

        Raises:
            UserError: there is no such folder, or it holds no manifest.
            StorageError: it can't be fetched, or is not what its digest says.
        """
        parsed = parse_uri(uri)
        if parsed.scheme not in MOUNTED:
            remote = self._open(parsed, uri, SecretRole.OUTPUT)
            return fetch_artifact(remote, digest, self.scratch / "artifacts")
        path = self.path(parsed)
        if not (path / MANIFEST_FILE).is_file():
            message = (
                f"{uri} has no {MANIFEST_FILE}: write the URI of an artifact that a FineTuneJob made. An adapter from "
                "elsewhere can be merged into its base model; compare that as a model, by its uri"
            )
            raise UserError("ArtifactNotFound", message)
        return path

    def checkpoint_folder(self, uri: str) -> Path:
        """Folder of a committed checkpoint, without the state of the optimizer where it is fetched.

        Raises:
            UserError: there is no such folder, or it was not committed.
            StorageError: it can't be fetched.
        """
        parsed = parse_uri(uri)
        if parsed.scheme in MOUNTED:
            path = self.path(parsed)
        else:
            patterns = [*_TOKENIZER_FILES, _WEIGHTS]
            path = fetch_tree(
                self._open(parsed, uri, SecretRole.WORKSPACE), self.scratch / "checkpoints", patterns
            )
        if not (path / COMMIT_FILE).is_file():
            message = (
                f"{uri} has no {COMMIT_FILE}: the checkpoint was removed, as newer ones replaced it, or no FineTuneJob "
                "made it"
            )
            raise UserError("CheckpointNotFound", message)
        return path

    def open(self, uri: StorageUri, roles: Roles, *, holds_rows: bool = False) -> Remote:
        """Remote store, opened with the first existing Secret of the roles."""
        return open_remote(uri, roles, self.secrets, holds_rows=holds_rows)

    def _open(self, parsed: StorageUri, uri: str, role: str) -> Remote:
        return self.open(parsed, self._roles_for(uri, role))

    def _roles_for(self, uri: str, role: str) -> Roles:
        return self._roles.get(uri, (role,))

    def _fetch_model(self, parsed: StorageUri, uri: str, weights: bool) -> Path:
        if parsed.scheme is Scheme.HF:
            return self._fetch_hub_model(parsed, self._roles_for(uri, SecretRole.BASE_MODEL), weights)
        remote = self._open(parsed, uri, SecretRole.BASE_MODEL)
        patterns = [*_TOKENIZER_FILES, _WEIGHTS]
        return fetch_tree(remote, self.scratch / "models", patterns, outlines=not weights)

    def _fetch_hub_model(self, uri: StorageUri, roles: Roles, weights: bool) -> Path:
        from huggingface_hub import snapshot_download

        patterns = [*_TOKENIZER_FILES, _WEIGHTS] if weights else _TOKENIZER_FILES
        prefix = f"{uri.path}/" if uri.path else ""

        def download(cache: Path | None) -> str:
            return snapshot_download(
                uri.name,
                revision=uri.revision,
                allow_patterns=[prefix + pattern for pattern in patterns],
                token=self.hub_token(roles),
                cache_dir=cache,
            )

        folder = fetch_through_cache(download)
        return Path(folder) / uri.path

    def _fetch_hub_dataset(self, uri: StorageUri, roles: Roles) -> Path:
        from huggingface_hub import hf_hub_download

        if not uri.path:
            raise UserError(
                "DatasetNotFound", f"{uri} names no file: write hf://org/repo/file.jsonl@revision"
            )
        file = hf_hub_download(
            uri.name,
            uri.path,
            repo_type="dataset",
            revision=uri.revision,
            token=self.hub_token(roles),
        )
        return Path(file)

    def hub_token(self, roles: Roles = (SecretRole.BASE_MODEL,)) -> str | None:
        """Token for private repositories of the hub, if there is one."""
        from tunesmith_storage.hub import find_token

        return find_token(load_credentials(roles, self.secrets))


def link_folder(source: Path, target: Path) -> None:
    """Copy a folder by hard links, or by content where links are not supported."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except OSError:
        # Some network volumes know no hard links.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
