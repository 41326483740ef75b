"""Health of the engine at its socket, for the probes of its container: ``python -m tunesmith_engine.health SOCKET``."""

import http.client
import socket
import sys

#: Time for the answer.
SECONDS = 5.0


def is_healthy(path: str) -> bool:
    """True if the engine answers that it is well.

    Raises:
        OSError, http.client.HTTPException: it does not answer.
    """
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(path)
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1]))
