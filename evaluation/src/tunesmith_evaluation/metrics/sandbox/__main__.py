"""Sandbox server: ``python -m tunesmith_evaluation.metrics.sandbox SOCKET [FOLDER]``."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from .confinement import ConfinementUnavailable
from .runner import LocalCodeRunner
from .server import RefusedRunner, SandboxServer, ServedRunner


def main() -> int:
    """Serve until SIGTERM. Where this machine can't confine processes, the answer to each request says so."""
    parser = argparse.ArgumentParser(
        prog="sandbox", description="Runs code of answers in confined processes."
    )
    parser.add_argument("socket", type=Path, help="path of the Unix socket")
    parser.add_argument(
        "folder", type=Path, nargs="?", help="folder for files of runs; the system's if unset"
    )
    parser.add_argument("--parallel", type=int, default=2, help="number of runs at the same time")
    arguments = parser.parse_args()
    runner: ServedRunner
    try:
        runner = LocalCodeRunner(arguments.folder)
    except ConfinementUnavailable as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201
        runner = RefusedRunner(str(error))
    server = SandboxServer(arguments.socket, runner, arguments.parallel)

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with server:
        server.serve_forever(poll_interval=0.1)
    arguments.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
