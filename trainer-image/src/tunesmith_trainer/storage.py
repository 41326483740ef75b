"""Where a pod finds what URIs name, and how files come to be there whole or not at all."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import MOUNT_ROOT, Scheme, StorageUri, mount_path, parse_uri

from .failures import InfrastructureError, UserError

_TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
_MODEL_FILES = [*_TOKENIZER_FILES, "*.safetensors"]


class Storage:
    """Reads ``pvc://`` and ``configmap://`` below a mount root and fetches ``hf://`` into the hub's cache.

    ``HF_TOKEN`` opens private repositories; ``HF_HOME`` moves the cache, which is in the home folder
    otherwise.

    Args:
        mount_root: the folder that holds the mounted volumes.
    """

    def __init__(self, mount_root: Path = Path(MOUNT_ROOT)) -> None:
        self._mount_root = mount_root

    def path(self, uri: StorageUri) -> Path:
        """The mounted path of a ``pvc://`` or ``configmap://`` URI.

        Raises:
            InvalidUri: ``hf://`` is not mounted.
        """
        return self._mount_root / mount_path(uri).relative_to(MOUNT_ROOT)

    def dataset_file(self, uri: str) -> Path:
        """The file that a data set's URI names.

        Raises:
            UserError: there is no such file.
        """
        parsed = parse_uri(uri)
        path = self._fetch_dataset_file(parsed) if parsed.scheme is Scheme.HF else self.path(parsed)
        if path.is_dir():
            raise UserError("DatasetNotFound", f"{uri} is a folder: write the URI of a JSONL or JSON file")
        if not path.is_file():
            raise UserError("DatasetNotFound", f"{uri} does not exist: write the URI of a JSONL or JSON file")
        return path

    def model_folder(self, uri: str, *, weights: bool) -> Path:
        """The folder of a base model; from a hub without weights only configuration and tokenizer come.

        Raises:
            UserError: there is no such folder, or it holds no ``config.json``.
        """
        parsed = parse_uri(uri)
        path = self._fetch_model(parsed, weights) if parsed.scheme is Scheme.HF else self.path(parsed)
        if not path.is_dir():
            raise UserError("ModelNotFound", f"{uri} is no folder: write the URI of a model's folder")
        if not (path / "config.json").is_file():
            raise UserError("ModelNotFound", f"{uri} holds no config.json: write the URI of a model's folder")
        return path

    def artifact_folder(self, uri: str) -> Path:
        """The folder of an artefact.

        Raises:
            UserError: there is no such folder, or it holds no manifest.
        """
        parsed = parse_uri(uri)
        path = self._fetch_artifact(parsed) if parsed.scheme is Scheme.HF else self.path(parsed)
        if not (path / MANIFEST_FILE).is_file():
            raise UserError(
                "ArtifactNotFound", f"{uri} holds no {MANIFEST_FILE}: write the URI of an artefact"
            )
        return path

    def _fetch_artifact(self, uri: StorageUri) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(uri.name, revision=uri.revision, token=os.environ.get("HF_TOKEN"))
        return Path(folder) / uri.path

    def _fetch_model(self, uri: StorageUri, weights: bool) -> Path:
        from huggingface_hub import snapshot_download

        patterns = _MODEL_FILES if weights else _TOKENIZER_FILES
        prefix = f"{uri.path}/" if uri.path else ""
        folder = snapshot_download(
            uri.name,
            revision=uri.revision,
            allow_patterns=[prefix + pattern for pattern in patterns],
            token=os.environ.get("HF_TOKEN"),
        )
        return Path(folder) / uri.path

    def _fetch_dataset_file(self, uri: StorageUri) -> Path:
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
            token=os.environ.get("HF_TOKEN"),
        )
        return Path(file)


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def describe_files(folder: Path) -> tuple[File, ...]:
    """All files below a folder with sizes and digests, by path."""
    return tuple(
        File(
            path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=file_digest(path)
        )
        for path in sorted(_files(folder))
    )


def holds_files(folder: Path, files: tuple[File, ...]) -> bool:
    """Whether a folder holds each of the files, byte for byte."""
    return all(
        (path := folder / file.path).is_file()
        and path.stat().st_size == file.size_bytes
        and file_digest(path) == file.sha256
        for file in files
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whenever the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def place_folder(staged: Path, final: Path) -> None:
    """Move a finished folder to its content-addressed place; what is there already is left.

    Raises:
        InfrastructureError: the place holds other bytes.
    """
    for path in _files(staged):
        sync(path)
    sync(staged)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        if not holds_files(final, describe_files(staged)):
            message = f"{final} holds other files than its name says: move it away and run again"
            raise InfrastructureError("ArtifactDamaged", message) from None
        shutil.rmtree(staged)
    sync(final.parent)


def link_folder(source: Path, target: Path) -> None:
    """A second folder with the same files, which take no more room."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except OSError:
        # Some network volumes know no hard links.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def sync(path: Path) -> None:
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
