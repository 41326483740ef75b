"""An S3 server behind a proxy that holds up one upload, as a pod's that is lost in the midst of it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "transfer-encoding", "content-length"})
_LONGEST_SECONDS = 300


class HeldUpload:
    """The upload that does not arrive.

    Attributes:
        url: address of the proxy.
        held: set when the upload has come in.
        released: to be set when its sender is gone.
    """

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.url = ""
        self.held, self.released = threading.Event(), threading.Event()
        self._parts = parts

    def holds(self, method: str, path: str) -> bool:
        """True for the one request that is held up."""
        return method == "PUT" and not self.held.is_set() and all(part in path for part in self._parts)


@contextmanager
def hold_upload(url: str, *parts: str) -> Iterator[HeldUpload]:
    """Proxy of a server that holds up the first upload whose key contains all the parts."""
    upload = HeldUpload(parts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if upload.holds(self.command, self.path):
                upload.held.set()
                upload.released.wait(_LONGEST_SECONDS)
                self.close_connection = True
                return
            connection = http.client.HTTPConnection(urlsplit(url).netloc)
            # With the host that the client has signed.
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            data = response.read()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        upload.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield upload
        finally:
            upload.released.set()
            server.shutdown()
            thread.join()
