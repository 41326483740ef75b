"""Pods without keys: the identities that Amazon's and Google's Kubernetes give them. Azure's is in test_azure.py."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from servers.storage_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

from tunesmith_cluster.certificates import Authority
from tunesmith_contract.uris import parse_uri
from tunesmith_storage.stores import open_remote

Mount = Callable[[dict[str, str]], Path]
TOKEN = "token-of-the-service-account"
ROLE = "arn:aws:iam::111122223333:role/trainer"
_END = "2036-01-01T00:00:00Z"
_STS = (
    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><SessionToken></SessionToken>"
    f"<AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>"
    f"<Expiration>{_END}</Expiration>"
    "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
)


class _Cloud(BaseHTTPRequestHandler):
    """The agent of EKS Pod Identity, Amazon's token service, GKE's metadata server and an empty bucket."""

    def do_GET(self) -> None:
        if self.path == "/v1/credentials" and self.headers["Authorization"] == TOKEN:
            self._answer(
                {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "", "Expiration": _END}
            )
        elif self.path.startswith("/computeMetadata/v1/") and self.headers["Metadata-Flavor"] == "Google":
            self._answer({"access_token": "google-token", "expires_in": 3600, "token_type": "Bearer"})
        elif self.headers["Authorization"] == "Bearer google-token":
            self._send(b"<ListBucketResult></ListBucketResult>")
        else:
            self.send_error(403)

    def do_POST(self) -> None:
        text = (
            self.rfile.read(int(self.headers.get("Content-Length", 0))).decode() or urlsplit(self.path).query
        )
        form = {name: values[0] for name, values in parse_qs(text).items()}
        if (form.get("WebIdentityToken"), form.get("RoleArn")) == (TOKEN, ROLE):
            self._send(_STS.encode())
        else:
            self.send_error(403)

    def _answer(self, body: dict[str, object]) -> None:
        self._send(json.dumps(body).encode())

    def _send(self, data: bytes) -> None:
        self.server.answered.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read no log of it."""


@contextmanager
def run_cloud(certificate: str = "", key: str = "") -> Iterator[tuple[str, list[str]]]:
    """Address of the stand-in, and the paths of the requests that it granted."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Cloud) as server:
        server.answered = []  # type: ignore[attr-defined]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", server.answered  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The token that kubelet projects into the pod."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_eks_pod_identity(
    s3: S3Server, secrets: Mount, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_cloud() as (host, answered):
        environment(
            monkeypatch,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://{host}/v1/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token_file),
            AWS_REGION="us-east-1",
        )
        uri = parse_uri(f"s3://{BUCKET}/no-such-folder")
        assert open_remote(uri, ["output"], secrets({"AWS_ENDPOINT_URL": s3.url})).entries() == {}
    assert answered == ["/v1/credentials"]


def test_iam_roles_for_service_accounts(
    s3: S3Server, secrets: Mount, authority: Authority, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token service is asked over TLS, whose authority is that of the Secret."""
    authority.issue("sts", "sts", hosts=["127.0.0.1"])
    with run_cloud(authority.path("sts"), authority.path("sts", "key")) as (host, answered):
        environment(
            monkeypatch,
            AWS_WEB_IDENTITY_TOKEN_FILE=str(token_file),
            AWS_ROLE_ARN=ROLE,
            AWS_ENDPOINT_URL_STS=f"https://{host}",
            AWS_REGION="us-east-1",
        )
        keys = {"AWS_ENDPOINT_URL": s3.url, "AWS_CA_BUNDLE": Path(authority.path("ca")).read_text()}
        uri = parse_uri(f"s3://{BUCKET}/no-such-folder")
        assert open_remote(uri, ["output"], secrets(keys)).entries() == {}
    assert len(answered) == 1


def test_gke_workload_identity(secrets: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_cloud() as (host, answered):
        environment(monkeypatch, GCE_METADATA_HOST=host, GOOGLE_BASE_URL=f"http://{host}")
        uri = parse_uri(f"gs://{BUCKET}/")
        assert open_remote(uri, ["output"], secrets({})).entries() == {}
    assert [urlsplit(path).path for path in answered] == [
        "/computeMetadata/v1/instance/service-accounts/default/token",
        f"/{BUCKET}",
    ]
