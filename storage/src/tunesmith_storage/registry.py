"""Client of OCI registries: ``oci://``. Each file of an artifact is a layer, its manifest the image's configuration.

The tag is ``sha256-<hex>`` of the artifact's manifest, not of the image's. Layers carry their file's name as
``org.opencontainers.image.title``, so that ``oras pull`` writes the same folder.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import requests
from dxf import DXF, DXFBase
from dxf.exceptions import DXFAuthInsecureError, DXFDigestMismatchError, DXFError, DXFUnauthorizedError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import Scheme, StorageUri

from .credentials import Credentials
from .download import in_parallel
from .errors import UNAVAILABLE, NotFound, StorageError, StorageRefused, StorageUnavailable
from .files import stream_digest
from .remote import Entry
from .retries import with_retries

#: Keys of a Secret for ``oci://``: ``username`` and ``password``, or a Secret of type kubernetes.io/dockerconfigjson.
OCI_KEYS = ("username", "password", ".dockerconfigjson", "ca.crt", "plainHTTP")
DOCKER_CONFIG_KEY = ".dockerconfigjson"

ARTIFACT_TYPE = "application/vnd.tunesmith.artifact.v1"
CONFIG_TYPE = "application/vnd.tunesmith.manifest.v1+json"
FILE_TYPE = "application/octet-stream"
IMAGE_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_HOST = "registry-1.docker.io"
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_SECONDS = 60.0


class Repository:
    """Image at a tag or digest of a repository."""

    def __init__(self, uri: StorageUri, credentials: Credentials) -> None:
        credentials.require_any(Scheme.OCI, OCI_KEYS)
        credentials.require_together("username", "password")
        self.uri = uri
        self._credentials = credentials
        self._host, _, self._name = uri.name.partition("/")
        self._login = find_login(credentials, self._host)

    def entries(self) -> dict[str, Entry]:
        """Layers of the image, by the names of their files."""
        if self.uri.revision is None:
            message = f"{self.uri} names no image: write oci://registry/repository:tag"
            raise NotFound("ImageNotFound", message)
        entries = {}
        for layer in self._image()["layers"]:
            title, digest = layer.get("annotations", {}).get(TITLE), layer["digest"]
            entries[title or digest] = Entry(title or "", layer["size"], digest, digest)
        return entries

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a layer from an offset on; registries need not support ranges, so earlier bytes are skipped here."""
        with self._explained("read"), self._client() as client:
            chunks = cast(Iterable[bytes], client.pull_blob(entry.identity, chunk_size=_CHUNK_BYTES))
            for chunk in chunks:
                skipped = min(offset, len(chunk))
                offset -= skipped
                if chunk := chunk[skipped:]:
                    yield chunk

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Push what is missing, read everything back, and commit it by setting the tag last."""
        described = File(path=MANIFEST_FILE, size_bytes=len(manifest), sha256=sha256_digest(manifest))
        layers = [*files, described]
        in_parallel(partial(self._place, folder, file) for file in layers)
        image = build_image(layers)
        with_retries(partial(self._tag, image))
        if self._image() != json.loads(image):
            message = f"{self.uri} names another image than was pushed: remove that tag and run again"
            raise StorageUnavailable("ArtifactDamaged", message)

    def _place(self, folder: Path, file: File) -> None:
        """Push one file unless the registry has it, and read it back."""
        with_retries(partial(self._push, folder / file.path))
        entry = Entry(file.path, file.size_bytes, file.sha256, file.sha256)
        digest = with_retries(lambda: stream_digest(self.read(entry)))
        if digest != file.sha256:
            message = f"{file.path} in {self.uri} came back as {digest}: run again"
            raise StorageUnavailable("ArtifactDamaged", message)

    def _push(self, file: Path) -> None:
        with self._explained("written"), self._client() as client:
            client.push_blob(str(file))

    def _tag(self, image: str) -> None:
        with self._explained("written"), self._client() as client:
            client.set_manifest(str(self.uri.revision), image)

    def _image(self) -> dict[str, Any]:
        """Manifest of the image, as the registry holds it.

        Raises:
            NotFound: it is not the manifest of a single image.
        """

        def get() -> dict[str, Any]:
            with self._explained("read"), self._client() as client:
                text, _ = client.get_manifest_and_response(str(self.uri.revision))
                image: dict[str, Any] = json.loads(text)
                return image

        image = with_retries(get)
        if "layers" not in image:
            raise NotFound("ImageNotFound", f"{self.uri} is an index of images: write the URI of one")
        return image

    @contextmanager
    def _client(self) -> Iterator[DXF]:
        host = _DOCKER_HUB_HOST if self._host == _DOCKER_HUB else self._host
        authority = self._credentials.path("ca.crt") if self._credentials.get("ca.crt") else None
        client = DXF(
            host,
            self._name,
            auth=self._authenticate,
            insecure=self._credentials.get("plainHTTP") == "true",
            tlsverify=str(authority) if authority else True,
            timeout=_TIMEOUT_SECONDS,
        )
        with client:
            yield client

    def _authenticate(self, client: DXFBase, response: requests.Response) -> None:
        username, password = self._login or (None, None)
        client.authenticate(username, password, response=response)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        """Translate errors of the library, whose text may quote signed addresses, into storage errors."""
        try:
            yield
        except (DXFError, requests.RequestException) as error:
            raise explain(error, self.uri, self._credentials, verb) from None


def build_image(files: Sequence[File]) -> str:
    """Image manifest of an artifact, the same bytes for the same files."""
    layers = [
        {
            "mediaType": CONFIG_TYPE if file.path == MANIFEST_FILE else FILE_TYPE,
            "digest": file.sha256,
            "size": file.size_bytes,
            "annotations": {TITLE: file.path},
        }
        for file in files
    ]
    config = next({**layer, "annotations": {}} for layer in layers if layer["mediaType"] == CONFIG_TYPE)
    del config["annotations"]
    image = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
    }
    return canonical_json(image).decode()


def find_login(credentials: Credentials, host: str) -> tuple[str, str] | None:
    """User and password for a registry; None where the Secret has none.

    Raises:
        StorageRefused: the Secret's Docker configuration can't be read, or has no entry for this registry.
    """
    username, password = credentials.get("username"), credentials.get("password")
    if username and password:
        return username, password
    if (text := credentials.get(DOCKER_CONFIG_KEY)) is None:
        return None
    where = f"the key {DOCKER_CONFIG_KEY} of {credentials.source}"
    try:
        hosts = {_host_of(key): login for key, login in json.loads(text)["auths"].items()}
        if host not in hosts:
            present = ", ".join(sorted(hosts)) or "none"
            message = f"{where} has no entry for {host} (it has {present}): add one"
            raise StorageRefused("CredentialsMissing", message)
        return _login_of(hosts[host])
    except (ValueError, KeyError, TypeError, AttributeError):
        message = (
            f"{where} is no Docker configuration: write what `docker login {host}` leaves in config.json"
        )
        raise StorageRefused("CredentialsInvalid", message) from None


def _host_of(key: str) -> str:
    """Host in a key such as ``https://index.docker.io/v1/``."""
    host = key.removeprefix("https://").removeprefix("http://").split("/")[0]
    return _DOCKER_HUB if host in ("index.docker.io", _DOCKER_HUB_HOST) else host


def _login_of(entry: dict[str, str]) -> tuple[str, str]:
    if "auth" in entry:
        username, separator, password = base64.b64decode(entry["auth"]).decode().partition(":")
        if not separator:
            raise ValueError("auth")
        return username, password
    return entry["username"], entry["password"]


def explain(error: Exception, uri: StorageUri, credentials: Credentials, verb: str) -> StorageError:
    """Storage error for an error of the library, without the request that the library quotes."""
    secret = credentials.source
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else 0
    match error:
        case DXFAuthInsecureError():
            message = f"passwords are not sent over plain HTTP: take plainHTTP out of {secret}, and give {uri.name} TLS"
            return StorageRefused("InsecureRegistry", message)
        case DXFDigestMismatchError():
            return StorageUnavailable("ArtifactDamaged", f"a layer of {uri} is damaged: push it again")
        case DXFUnauthorizedError():
            return _unauthorized(uri, credentials)
        case requests.exceptions.SSLError():
            message = f"the certificate of {uri.name} is not trusted: add the authority's as the key ca.crt to {secret}"
            return StorageRefused("UntrustedCertificate", message)
    if status in (401, 403):
        message = (
            f"{uri} may not be {verb} with {secret if credentials.keys else 'no login'}: grant the right"
        )
        return StorageRefused("AccessDenied", message)
    if status == 404:
        return NotFound("ImageNotFound", f"{uri} does not exist: write another URI")
    if 400 <= status < 500 and status not in (408, 429):
        return StorageRefused("StorageRefused", f"{uri} can't be {verb} (HTTP {status}): check the URI")
    detail = f"HTTP {status}" if status else type(error).__name__
    return StorageUnavailable(UNAVAILABLE, f"{uri} can't be {verb} at the moment ({detail})")


def _unauthorized(uri: StorageUri, credentials: Credentials) -> StorageRefused:
    if not credentials.keys:
        message = f"nothing opens {uri}: name a Secret with username and password, or {DOCKER_CONFIG_KEY}"
        return StorageRefused("CredentialsMissing", message)
    keys = DOCKER_CONFIG_KEY if credentials.get(DOCKER_CONFIG_KEY) else "username or password"
    message = f"the registry of {uri} refuses {keys} of {credentials.source}: correct it"
    return StorageRefused("AccessDenied", message)
