"""Engine that serves what an evaluation beside it orders: ``python -m tunesmith_engine.on_order FOLDER``."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from pydantic import ValidationError

from tunesmith_contract.engine_order import ORDER_FILE, STATE_FILE, EngineOrder, EngineState

#: The folder is in memory or on the node's disk: looking costs nothing.
POLL_SECONDS = 0.2
#: From the signal to vLLM to its end.
END_SECONDS = 30.0
#: Lines of vLLM's log that a report on its end holds.
LOG_LINES = 40


class EngineProcess:
    """vLLM's server as a child process, whose output goes on to this process's.

    Args:
        order: the order that starts it.
        command: program and first arguments.
    """

    def __init__(self, order: EngineOrder, command: Sequence[str]) -> None:
        self.order = order
        self._process = subprocess.Popen(
            [*command, *order.arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._copy, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def end_state(self) -> EngineState | None:
        """State for the evaluation if the process has ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._reader.join(END_SECONDS)
        return EngineState(number=self.order.number, exit_code=code, message="".join(self._log)[-4096:])

    def stop(self) -> None:
        """End the process, by force where it does not end by itself."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_SECONDS)

    def _copy(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._log.append(line)
                sys.stderr.write(line)


def serve_orders(folder: Path, command: Sequence[str], stopped: threading.Event) -> None:
    """Serve orders until the event is set.

    Args:
        folder: folder that both containers share.
        command: vLLM's server without the arguments of an order.
        stopped: set at the end of the pod.
    """
    process: EngineProcess | None = None
    done = 0
    while not stopped.wait(POLL_SECONDS):
        order = _read_order(folder)
        if order is not None and order.number > done:
            done = order.number
            if process is not None:
                process.stop()
            process = EngineProcess(order, command) if order.arguments else None
        if process is not None and (state := process.end_state()):
            _write(folder / STATE_FILE, state.to_json())
            process = None
    if process is not None:
        process.stop()


def _read_order(folder: Path) -> EngineOrder | None:
    try:
        return EngineOrder.model_validate_json((folder / ORDER_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SystemExit(f"{folder / ORDER_FILE} is no order of this release: {error}") from error


def _write(path: Path, text: str) -> None:
    """Replace a file whole: the reader never sees half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def main() -> int:
    """Serve orders until SIGTERM."""
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    serve_orders(Path(sys.argv[1]), [sys.executable, "-m", "tunesmith_engine"], stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
