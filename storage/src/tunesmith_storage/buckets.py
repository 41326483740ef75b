"""Client of buckets: ``s3://``, ``gs://`` and ``az://``, whose buckets are called containers."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import Scheme, StorageUri

from .azure import ACCOUNT, ACCOUNT_KEY, azure_problem, build_azure, identity_problem
from .credentials import Credentials
from .download import in_parallel
from .errors import UNAVAILABLE, NotFound, StorageError, StorageRefused, StorageUnavailable
from .files import stream_digest
from .remote import Entry

#: Keys of a Secret for ``s3://``; the first two only together. AWS_CA_BUNDLE is a certificate itself, not its path.
S3_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",
    "AWS_SKIP_SIGNATURE",
)
#: The key of a Secret for ``gs://``: a service account's key file.
GS_KEYS = ("credentials.json",)

_READ_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MIN_PART_BYTES = 8 * 1024 * 1024
#: S3 takes no more than 10,000 parts of one object.
_MAX_PARTS = 9_000
_PARALLEL_PARTS = 4
_RETRIES = {"max_retries": 6, "retry_timeout": timedelta(seconds=90)}
_ENTITY_TAGS = ('"', "W/")
_METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")


#: What tells a version of an object from another.
Version = dict[str, str]


class Bucket:
    """Objects at and below one URI of a bucket."""

    def __init__(self, uri: StorageUri, credentials: Credentials) -> None:
        self.uri = uri
        self._credentials = credentials
        try:
            self._store = _build(uri, credentials)
        except (BaseError, ValueError):
            keys = ", ".join(sorted(credentials.keys)) or "none"
            message = f"{credentials.source} can't be used for {uri.scheme}:// (keys: {keys}): correct it"
            raise StorageRefused("CredentialsInvalid", message) from None

    def entries(self) -> dict[str, Entry]:
        """All objects at and below the URI, by the path below it."""
        entries = {}
        with self._explained("listed"):
            for page in obstore.list(self._store, prefix=self.uri.path or None):
                for meta in page:
                    entries[self._relative(meta["path"])] = self._entry(meta)
        if not entries and self.uri.path:
            # A listing holds what is below a folder, not the object of exactly this name.
            with self._explained("read"), suppress(FileNotFoundError):
                entries[""] = self._entry(obstore.head(self._store, self.uri.path))
        return entries

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """Bytes of an object from an offset on; an object that changes meanwhile is an error."""
        unchanged = {"if_match": entry.identity} if entry.identity.startswith(_ENTITY_TAGS) else {}
        for start in range(offset, entry.size_bytes, _READ_BYTES):
            end = min(start + _READ_BYTES, entry.size_bytes)
            with self._explained("read"):
                options: Any = {"range": (start, end), **unchanged}
                # As it arrives: a whole range of each of many downloads would not fit into memory.
                for chunk in obstore.get(self._store, self._key(entry.path), options=options).stream(
                    _CHUNK_BYTES
                ):
                    yield bytes(chunk)

    def upload(self, path: str, file: Path | bytes) -> None:
        """Store an object; it exists complete or not at all."""
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        with self._explained("written"):
            obstore.put(
                self._store,
                self._key(path),
                file,
                chunk_size=max(_MIN_PART_BYTES, size // _MAX_PARTS),
                max_concurrency=_PARALLEL_PARTS,
            )

    def read_current(self, path: str) -> tuple[bytes, Version] | None:
        """Bytes of a small object with their version, for ``write_if``; None where there is none."""
        with self._explained("read"), suppress(FileNotFoundError):
            answer = obstore.get(self._store, self._key(path))
            version = {"e_tag": answer.meta["e_tag"], "version": answer.meta["version"]}
            return bytes(answer.bytes()), {name: value for name, value in version.items() if value}
        return None

    def write_if(self, path: str, data: bytes, version: Version | None) -> bool:
        """Store a small object unless another writer came before; False if one did, and wrote other bytes.

        Args:
            version: of the object that is replaced; None if there must be none.
        """
        mode: Any = "create" if version is None else version
        with self._explained("written"):
            try:
                obstore.put(self._store, self._key(path), data, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                # Also what a retry meets whose first try was stored, though its answer was lost.
                current = self.read_current(path)
                return current is not None and current[0] == data
            except BaseError as error:
                if not _NO_CONDITIONS.search(str(error)):
                    raise
                self.upload(path, data)
        return True

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; absent ones are no error."""
        if paths:
            with self._explained("removed"):
                obstore.delete(self._store, [self._key(path) for path in paths])

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Upload what is missing, read everything back, and commit it by writing the manifest last."""
        entries = self.entries()
        committed = MANIFEST_FILE in entries
        if committed and b"".join(self.read(entries[MANIFEST_FILE])) != manifest:
            raise self._damaged(MANIFEST_FILE)
        in_parallel(partial(self._place, folder, file, entries.get(file.path), committed) for file in files)
        if not committed:
            self.upload(MANIFEST_FILE, manifest)
            if b"".join(self.read(self.entries()[MANIFEST_FILE])) != manifest:
                raise self._damaged(MANIFEST_FILE)

    def _place(self, folder: Path, file: File, entry: Entry | None, committed: bool) -> None:
        """Upload one file unless it is stored already; a committed artifact is never overwritten."""
        if entry is not None and self._holds(entry, file):
            return
        if committed:
            raise self._damaged(file.path)
        self.upload(file.path, folder / file.path)
        with self._explained("read"):
            entry = self._entry(obstore.head(self._store, self._key(file.path)))
        if not self._holds(entry, file):
            raise self._damaged(file.path)

    def _holds(self, entry: Entry, file: File) -> bool:
        return entry.size_bytes == file.size_bytes and stream_digest(self.read(entry)) == file.sha256

    def _damaged(self, path: str) -> StorageUnavailable:
        message = (
            f"{path} in {self.uri} holds other bytes than its name says: move the folder away and run again"
        )
        return StorageUnavailable("ArtifactDamaged", message)

    def _entry(self, meta: Mapping[str, Any]) -> Entry:
        tag = meta["e_tag"]
        if tag and self.uri.scheme is Scheme.AZ and not tag.startswith(_ENTITY_TAGS):
            # Azure writes the tag of a listed blob without its quotation marks.
            tag = f'"{tag}"'
        return Entry(self._relative(meta["path"]), meta["size"], tag or meta["last_modified"].isoformat())

    def _key(self, path: str) -> str:
        return "/".join(filter(None, (self.uri.path, path)))

    def _relative(self, key: str) -> str:
        return key.removeprefix(self.uri.path).lstrip("/")

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        """Translate errors of the library, whose own text quotes requests, into storage errors."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise explain(error, self.uri, self._credentials, verb) from None


def _build(uri: StorageUri, credentials: Credentials) -> S3Store | GCSStore | AzureStore:
    match uri.scheme:
        case Scheme.S3:
            return _build_s3(uri.name, credentials)
        case Scheme.GS:
            return _build_gcs(uri.name, credentials)
        case _:
            return build_azure(uri.name, credentials, _RETRIES)


def _build_s3(bucket: str, credentials: Credentials) -> S3Store:
    """Client with the keys of the Secret, else of the environment: AWS_* variables, web identity, instance role."""
    credentials.require_any(Scheme.S3, S3_KEYS)
    credentials.require_together("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    names = [name for name in S3_KEYS if name != "AWS_CA_BUNDLE"]
    config = {name.lower(): value for name in names if (value := credentials.get(name))}
    client: dict[str, Any] = {"timeout": timedelta(minutes=5)}
    if config.get("aws_endpoint_url", os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
        client["allow_http"] = True
    if authority := credentials.get("AWS_CA_BUNDLE"):
        client["root_certificate"] = authority
    return S3Store(bucket, config=config, client_options=client, retry_config=_RETRIES)  # type: ignore[arg-type]


def _build_gcs(bucket: str, credentials: Credentials) -> GCSStore:
    """Client with the Secret's service account, else application default credentials or the node's identity."""
    credentials.require_any(Scheme.GS, GS_KEYS)
    config = {"service_account_key": key} if (key := credentials.get(GS_KEYS[0])) else {}
    client: dict[str, Any] = {"timeout": timedelta(minutes=5)}
    if "http://" in (key or os.environ.get("GOOGLE_BASE_URL", "")):
        client["allow_http"] = True
    return GCSStore(bucket, config=config, client_options=client, retry_config=_RETRIES)  # type: ignore[arg-type]


# Some stores with the protocol of S3 know no conditions; there, the last writer wins.
_NO_CONDITIONS = re.compile(r"<Code>NotImplemented</Code>|status code: 501")
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_KEYS_TO_ADD = {
    Scheme.S3: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    Scheme.GS: GS_KEYS[0],
    Scheme.AZ: f"{ACCOUNT} and {ACCOUNT_KEY}",
}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")


def explain(error: Exception, uri: StorageUri, credentials: Credentials, verb: str) -> StorageError:
    """Storage error for an error of the library, without the request and answer that the library quotes."""
    text = str(error)
    code = match[1] if (match := _CODE.search(text)) else ""
    status = match[1] if (match := _STATUS.search(text)) else ""
    if code in _NO_BUCKET:
        kind = "container" if uri.scheme is Scheme.AZ else "bucket"
        message = f"the {kind} {uri.name} does not exist: create it or write another in {uri}"
        return NotFound("BucketNotFound", message)
    if problem := identity_problem(text):
        return StorageRefused("AccessDenied", f"{problem} ({uri})")
    if any(server in text for server in _METADATA_SERVERS):
        keys = _KEYS_TO_ADD[uri.scheme]
        message = f"nothing opens {uri}: name a Secret with {keys}, or give the pods an identity that the store knows"
        return StorageRefused("CredentialsMissing", message)
    if problem := _credential_problem(code, uri, credentials):
        return StorageRefused("AccessDenied", problem)
    if status in ("401", "403") or code == "AccessDenied":
        identity = credentials.source if credentials.keys else "the pod's own identity"
        message = f"{uri} may not be {verb} with {identity} ({code or f'HTTP {status}'}): grant the right"
        return StorageRefused("AccessDenied", message)
    if isinstance(error, FileNotFoundError):
        return NotFound("ObjectNotFound", f"{uri} does not exist: write another URI")
    if status.startswith("4") and status not in ("408", "412", "429"):
        message = (
            f"{uri} can't be {verb} ({code or f'HTTP {status}'}): check the URI and {credentials.source}"
        )
        return StorageRefused("StorageRefused", message)
    detail = code or (f"HTTP {status}" if status else "no connection")
    if uri.scheme is Scheme.AZ and "dns error" in text:
        detail = f"the storage account has no address: is {ACCOUNT} right?"
    return StorageUnavailable(UNAVAILABLE, f"{uri} can't be {verb} at the moment ({detail})")


def _credential_problem(code: str, uri: StorageUri, credentials: Credentials) -> str:
    """Sentence on the key that the store rejects, if it names one; S3 and GCS share the error codes."""
    if uri.scheme is Scheme.AZ:
        return azure_problem(code, uri, credentials)
    secret = credentials.source
    match code:
        # versitygw has a name of its own for an unknown access key.
        case "InvalidAccessKeyId" | "XAdminUserNotFound":
            return f"the store of {uri} does not know AWS_ACCESS_KEY_ID of {secret}: correct that key"
        case "SignatureDoesNotMatch":
            return f"AWS_SECRET_ACCESS_KEY of {secret} does not belong to its AWS_ACCESS_KEY_ID: correct that key"
        case "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired":
            return f"AWS_SESSION_TOKEN of {secret} is no longer valid: renew it"
        case "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException":
            return f"the bucket {uri.name} lies in another region: set AWS_REGION in {secret}"
        case _:
            return ""
