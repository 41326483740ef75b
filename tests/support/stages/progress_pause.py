"""Progress server that lets a pod wait at a part of its stage."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def paused_progress(part: str, act: Callable[[], None]) -> Iterator[str]:
    """URL of a server that answers every update, except that of one part: there it calls ``act`` and says nothing.

    The pod waits for the answer, so that what ``act`` does to it happens within this part.
    """
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            metrics = body["trainerStatus"]["metrics"]
            if {"name": "part", "value": part} in metrics:
                act()
                end.wait()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/progress"
        finally:
            end.set()
            server.shutdown()
            thread.join()
