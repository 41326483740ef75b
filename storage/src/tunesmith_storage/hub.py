"""Client of the Hugging Face Hub: ``hf://``. An artifact is one folder of a repository, written by one commit."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, HfFileSystem
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tunesmith_contract.artifact import File
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import Scheme, StorageUri

from .credentials import Credentials
from .errors import UNAVAILABLE, NotFound, StorageError, StorageRefused, StorageUnavailable
from .remote import Entry

#: Keys of a Secret for ``hf://``, either of them.
HF_KEYS = ("token", "HF_TOKEN")

#: Each chunk is a request of its own.
_CHUNK_BYTES = 4 * 1024 * 1024


def find_token(credentials: Credentials) -> str | None:
    """Access token of the Secret, else of the environment.

    Raises:
        StorageRefused: the Secret holds no token.
    """
    credentials.require_any(Scheme.HF, HF_KEYS)
    token = next((value for key in HF_KEYS if (value := credentials.get(key))), None)
    return token or os.environ.get("HF_TOKEN")


class HubFolder:
    """A folder of a repository, or the whole of it.

    Args:
        repo_type: ``model``, or ``dataset``, which is only read.
    """

    def __init__(self, uri: StorageUri, credentials: Credentials, repo_type: str = "model") -> None:
        self.uri = uri
        self._credentials = credentials
        self._repo_type = repo_type
        self._token = find_token(credentials)
        self._api = HfApi(token=self._token)

    def entries(self) -> dict[str, Entry]:
        """All files at and below the folder; the hub reports the digests of large ones."""
        with self._explained("listed"):
            try:
                tree = self._api.list_repo_tree(
                    self.uri.name,
                    self.uri.path or None,
                    recursive=True,
                    revision=self.uri.revision,
                    repo_type=self._repo_type,
                )
                return {entry.path: entry for file in tree if (entry := self._entry(file))}
            except EntryNotFoundError:
                return {}

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a file from an offset on, past the library's own cache, which would keep them a second time."""
        with self._explained("read"):
            files = HfFileSystem(token=self._token, skip_instance_cache=True)
            prefix = "datasets/" if self._repo_type == "dataset" else ""
            path = f"{prefix}{self.uri.name}/{self._key(entry.path)}"
            with files.open(
                path, "rb", revision=self.uri.revision, block_size=_CHUNK_BYTES, cache_type="none"
            ) as stream:
                stream.seek(offset)
                while chunk := stream.read(_CHUNK_BYTES):
                    yield bytes(chunk)

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Upload what is missing in one commit, then compare the hub's listing with the files."""
        described = File(path=MANIFEST_FILE, size_bytes=len(manifest), sha256=sha256_digest(manifest))
        stored_files = [*files, described]
        entries = self.entries()
        missing = [file for file in stored_files if not _holds(entries.get(file.path), file, folder)]
        if missing and MANIFEST_FILE in entries:
            raise self._damaged(missing[0].path)
        if missing:
            additions = [
                CommitOperationAdd(self._key(file.path), str(folder / file.path)) for file in missing
            ]
            with self._explained("written"):
                # Uploaded ahead of the commit: a second try sends none of them again.
                self._api.preupload_lfs_files(self.uri.name, additions, revision=self.uri.revision)
                message = f"Add {self.uri.path.rpartition('/')[2][:12]}"
                self._api.create_commit(
                    self.uri.name, additions, commit_message=message, revision=self.uri.revision
                )
            entries = self.entries()
        for file in stored_files:
            if not _holds(entries.get(file.path), file, folder):
                raise self._damaged(file.path)

    def _entry(self, file: object) -> Entry | None:
        if not isinstance(file, RepoFile):
            return None
        path = file.path.removeprefix(self.uri.path).lstrip("/")
        sha256 = f"sha256:{file.lfs.sha256}" if file.lfs else None
        return Entry(path, file.size, sha256 or file.blob_id, sha256)

    def _key(self, path: str) -> str:
        return "/".join(filter(None, (self.uri.path, path)))

    def _damaged(self, path: str) -> StorageUnavailable:
        message = (
            f"{path} in {self.uri} holds other bytes than its name says: remove the folder and run again"
        )
        return StorageUnavailable("ArtifactDamaged", message)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        """Translate errors of the library into storage errors."""
        try:
            yield
        except (OSError, httpx2.HTTPError, EntryNotFoundError, HFValidationError) as error:
            raise explain(error, self.uri, self._credentials, verb) from None


def _holds(entry: Entry | None, file: File, folder: Path) -> bool:
    """True where the hub's file is the local one: by its digest, or for a small one by git's blob id."""
    if entry is None or entry.size_bytes != file.size_bytes:
        return False
    if entry.sha256 is not None:
        return entry.sha256 == file.sha256
    return entry.identity == _git_blob_id(folder / file.path)


def _git_blob_id(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def explain(error: Exception, uri: StorageUri, credentials: Credentials, verb: str) -> StorageError:
    """Storage error for an error of the library."""
    if isinstance(error, GatedRepoError):
        message = f"{uri} is gated: accept its terms, and put your token under the key token of a Secret"
        return StorageRefused("AccessDenied", message)
    absent = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, HFValidationError)
    if isinstance(error, absent):
        hint = "write another URI, or name a Secret with the key token if it is private"
        return NotFound("RepositoryNotFound", f"{uri} does not exist: {hint}")
    status = (
        error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    )
    if status in (401, 403):
        identity = f"the token of {credentials.source}" if credentials.keys else "no token"
        message = (
            f"{uri} may not be {verb} with {identity}: write a token with that right under the key token"
        )
        return StorageRefused("AccessDenied", message)
    if 400 <= status < 500 and status not in (408, 429):
        return StorageRefused("StorageRefused", f"{uri} can't be {verb} (HTTP {status}): check the URI")
    detail = f"HTTP {status}" if status else type(error).__name__
    return StorageUnavailable(UNAVAILABLE, f"{uri} can't be {verb} at the moment ({detail})")
