"""Azure Blob Storage for tests: Microsoft's emulator over TLS, and a stand-in for Entra's exchange of tokens."""

import base64
import hmac
import json
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode
from xml.etree.ElementTree import fromstring

from servers.ports import free_port
from servers.storage_servers import BUCKET, running

from tunesmith_cluster.certificates import Authority
from tunesmith_images.azurite import azurite_command

ACCOUNT = "tunesmithtests"
ACCOUNT_KEY = base64.b64encode(b"azure-secret-of-the-tests").decode()
TENANT, CLIENT = "0f0f0f0f-1111-4222-8333-444444444444", "9a9a9a9a-1111-4222-8333-555555555555"
#: What kubelet projects into a pod for the ServiceAccount that Entra trusts.
SERVICE_ACCOUNT_TOKEN = "token-of-the-service-account"
_VERSION = "2024-11-04"
_START_SECONDS = 60


@dataclass(frozen=True)
class AzureAccount:
    """A storage account with one empty container.

    Attributes:
        endpoint: URL of its blobs.
        login: URL of the stand-in for Entra.
        authority: file of the certificate authority of both.
    """

    endpoint: str
    login: str
    authority: Path

    def secret(self) -> dict[str, str]:
        """The keys of a Secret that opens it by the account's key."""
        return self.identity_secret() | {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}

    def identity_secret(self) -> dict[str, str]:
        """The keys of a Secret for pods that have an identity of their own."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_CA_BUNDLE": self.authority.read_text(),
        }

    def connection_string(self) -> str:
        """What the portal shows for the account."""
        return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={self.endpoint};"

    def sas_token(self, rights: str = "rwdlac", hours: int = 1) -> str:
        """A shared access signature for the account's containers and blobs, as Microsoft documents it."""
        ends = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        signed = [ACCOUNT, rights, "b", "sco", "", ends, "", "", _VERSION, "", ""]
        signature = hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(signed).encode(), "sha256")
        fields = {"sv": _VERSION, "ss": "b", "srt": "sco", "sp": rights, "se": ends}
        return urlencode(fields | {"sig": base64.b64encode(signature).decode()})

    def first_bytes(self, path: str, size: int) -> dict[str, bytes]:
        """The first bytes of the blobs in a folder, by their names.

        Args:
            path: container and folder.
        """
        container, _, folder = path.partition("/")
        found = self._read(container, {"restype": "container", "comp": "list", "prefix": f"{folder}/"})
        names = [name.text or "" for name in fromstring(found).iter("Name")]
        return {
            name.rpartition("/")[2]: self._read(f"{container}/{name}", {})[:size]
            for name in names
            if name.rpartition("/")[0] == folder
        }

    def _read(self, path: str, fields: dict[str, str]) -> bytes:
        url = f"{self.endpoint}/{quote(path)}?{urlencode(fields)}&{self.sas_token()}"
        trust = ssl.create_default_context(cafile=self.authority)
        with urllib.request.urlopen(url, timeout=_START_SECONDS, context=trust) as answer:
            content: bytes = answer.read()
        return content

    def pod_environment(self, token_file: Path) -> dict[str, str]:
        """Variables that the webhook of AKS workload identity sets in a pod."""
        return {
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
            "AZURE_AUTHORITY_HOST": self.login,
        }


@contextmanager
def run_azure(folder: Path, authority: Authority) -> Iterator[AzureAccount]:
    """A storage account with one empty container, and the login that opens it to a pod's identity."""
    authority.issue("azure", "azure", hosts=["127.0.0.1"])
    certificate, key = authority.path("azure"), authority.path("azure", "key")
    port = free_port()
    listen = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--cert", certificate, "--key", key]
    options = ["--location", str(folder), "--oauth", "basic", "--disableTelemetry", "--silent"]
    accounts = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    command = [*azurite_command(), *listen, *options]
    with (
        running(command, port, folder / "azurite.log", _START_SECONDS, **accounts),
        _login(certificate, key) as login,
    ):
        account = AzureAccount(f"https://127.0.0.1:{port}/{ACCOUNT}", login, Path(authority.path("ca")))
        _create_container(account)
        yield account


def _create_container(account: AzureAccount) -> None:
    headers = {"Authorization": f"Bearer {_access_token()}", "x-ms-version": _VERSION}
    url = f"{account.endpoint}/{BUCKET}?restype=container"
    request = urllib.request.Request(url, headers=headers, method="PUT")
    trust = ssl.create_default_context(cafile=account.authority)
    urllib.request.urlopen(request, timeout=_START_SECONDS, context=trust).close()


@contextmanager
def _login(certificate: str, key: str) -> Iterator[str]:
    """URL of a server that exchanges the token of the ServiceAccount for one that the storage accepts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Login) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _access_token() -> str:
    """A token with the claims that the emulator looks at; it checks no signature."""
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "nbf": now - 60,
        "iat": now - 60,
        "exp": now + 3600,
    }
    parts = [_encode({"alg": "none", "typ": "JWT"}), _encode(claims), "c2ln"]
    return ".".join(parts)


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class _Login(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        known = (self.path, form.get("client_id"), form.get("client_assertion")) == (
            f"/{TENANT}/oauth2/v2.0/token",
            CLIENT,
            SERVICE_ACCOUNT_TOKEN,
        )
        if known:
            self._answer(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": _access_token()})
        else:
            text = "AADSTS700213: No matching federated identity record found for presented assertion subject"
            self._answer(400, {"error": "invalid_request", "error_description": text})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read no log of it."""
