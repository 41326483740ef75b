"""Minimal Kubernetes API client: client certificates, JSON, connections that are kept."""

import base64
import json
import ssl
import tempfile
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
import yaml

from tunesmith_cluster.errors import ClusterError

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"

Document = dict[str, Any]

#: A new kind is served before its storage is ready: until then its lists are answered with 429.
_RETRIES = urllib3.Retry(
    total=5, connect=0, read=0, redirect=0, other=0, allowed_methods=["GET"], status_forcelist=[429],
    raise_on_status=False,
)  # fmt: skip


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiClient:
    """Requests to one API server, with the certificates of a kubeconfig's current context. Threads may share it."""

    def __init__(self, kubeconfig: Path, timeout: float = 10) -> None:
        context = current_context(yaml.safe_load(kubeconfig.read_text()))
        self._server = context.cluster["server"].rstrip("/")
        self._pool = urllib3.PoolManager(
            ssl_context=tls_context(context, kubeconfig), timeout=timeout, retries=_RETRIES, maxsize=8
        )

    def get(self, path: str) -> Document:
        """Read one object or list."""
        return self.request("GET", path)

    def create(self, path: str, body: Document) -> Document:
        """POST a new object to its collection."""
        return self.request("POST", path, body)

    def merge(self, path: str, body: Document) -> Document:
        """Merge-patch one object or its status."""
        return self.request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str) -> Document:
        """Delete one object."""
        return self.request("DELETE", path)

    def request(
        self, method: str, path: str, body: Document | None = None, content_type: str = JSON
    ) -> Document:
        """One request.

        Raises:
            ApiError: the server answered with a status of 400 or above.
            ConnectionError: it could not be reached, or did not answer in time.
        """
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "Accept": JSON}
        try:
            response = self._pool.request(method, self._server + path, body=payload, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(f"{method} {path}: {error}") from error
        text = response.data.decode()
        document: Document = json.loads(text) if text.startswith("{") else {"text": text}
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(response.status, document.get("reason", ""), document.get("message", text))
        return document


class Context:
    """Context of a kubeconfig, with its cluster and user."""

    def __init__(self, name: str, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        self.name = name
        self.cluster = cluster
        self.user = user


def current_context(kubeconfig: Mapping[str, Any]) -> Context:
    """The context that kubectl would use.

    Raises:
        ClusterError: the kubeconfig has no current context, or it names a missing entry.
    """
    name = kubeconfig.get("current-context") or ""
    context = _named(kubeconfig, "contexts", name)["context"]
    cluster = _named(kubeconfig, "clusters", context["cluster"])["cluster"]
    return Context(name, cluster, _named(kubeconfig, "users", context["user"])["user"])


def _named(kubeconfig: Mapping[str, Any], section: str, name: str) -> Mapping[str, Any]:
    for entry in kubeconfig.get(section) or ():
        if entry["name"] == name:
            return dict(entry)
    raise ClusterError(
        f"The kubeconfig has no {name!r} among its {section}: set current-context to one it has"
    )


def tls_context(context: Context, kubeconfig: Path) -> ssl.SSLContext:
    """TLS context; Python loads client certificates from files only, so embedded ones are written to files."""
    authority = _material(context.cluster, "certificate-authority", kubeconfig)
    tls = ssl.create_default_context(cadata=authority.decode())
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "crt", Path(folder) / "key"
        certificate.write_bytes(_material(context.user, "client-certificate", kubeconfig))
        key.write_bytes(_material(context.user, "client-key", kubeconfig))
        tls.load_cert_chain(certificate, key)
    return tls


def _material(section: Mapping[str, Any], name: str, kubeconfig: Path) -> bytes:
    if f"{name}-data" in section:
        return base64.b64decode(section[f"{name}-data"])
    if name in section:
        return kubeconfig.parent.joinpath(str(section[name])).read_bytes()
    raise ClusterError(f"{kubeconfig} has no {name}: only client certificates are supported here")
