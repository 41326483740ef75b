"""Google Cloud Storage for tests: its login in front of a real S3 server, which its XML API is the likeness of.

The emulators of Google's storage know its JSON API alone. Here a request must bear a token that the service account
has signed, as Google asks for; what passes goes on to an S3 server, signed with the key that opens it. Its bucket is
not simply open to everyone: uploads in parts are refused to the anonymous.
"""

import base64
import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from servers.storage_servers import ACCESS_KEY, SECRET_KEY, run_s3

EMAIL = "trainer@project.iam.example"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access denied.</Message></Error>"
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "authorization", "host"})


@contextmanager
def run_gcs(folder: Path) -> Iterator[str]:
    """A server with one empty bucket; the service account's key file that opens it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with run_s3(folder) as behind:
        handler = partial(_Handler, key.public_key(), urlsplit(behind.url).netloc)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield key_file(key, f"http://127.0.0.1:{server.server_port}")
            finally:
                server.shutdown()
                thread.join()


def key_file(key: rsa.RSAPrivateKey, url: str) -> str:
    """``credentials.json`` of a service account, for a server at another address than Google's."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": EMAIL, "private_key_id": "1", "private_key": pem.decode(), "gcs_base_url": url}
    return json.dumps({"type": "service_account", **account})


def sign(method: str, target: str, host: str) -> dict[str, str]:
    """The headers of a request to the S3 server behind, by AWS Signature Version 4 with an unsigned payload."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/us-east-1/s3/aws4_request"
    url = urlsplit(target)
    # Google's clients write the slashes of a key as %2F.
    path = quote(unquote(url.path))
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in url.query.split("&") if part))
    signed = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": time}
    names = ";".join(signed)
    lines = [f"{name}:{value}" for name, value in signed.items()]
    request = "\n".join([method, path, query, *lines, "", names, "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**signed, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, key: rsa.RSAPublicKey, behind: str, *args: object) -> None:
        self._key, self._behind = key, behind
        super().__init__(*args)  # type: ignore[arg-type]

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._is_signed():
            self._answer(403, {}, _DENIED)
            return
        connection = http.client.HTTPConnection(self._behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers |= _conditions(self.headers.get("x-goog-if-generation-match"))
        headers |= sign(self.command, self.path, self._behind)
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
        if tag := response.getheader("ETag"):
            kept["x-goog-generation"] = tag.strip('"')
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(response.status, kept, data, length)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _is_signed(self) -> bool:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        signed, _, signature = token.rpartition(".")
        try:
            self._key.verify(_decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decode(signed.split(".")[1]))
        except (InvalidSignature, ValueError, IndexError):
            return False
        return kind == "Bearer" and claims["iss"] == EMAIL

    def _answer(self, status: int, headers: dict[str, str], data: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _conditions(generation: str | None) -> dict[str, str]:
    """Conditions of the S3 server for Google's; a generation here is the entity tag."""
    match generation:
        case None:
            return {}
        case "0":
            return {"If-None-Match": "*"}
        case _:
            return {"If-Match": f'"{generation}"'}


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
