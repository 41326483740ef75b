"""Engine that serves what an evaluation beside it orders: ``python -m tunesmith_engine.on_order FOLDER``."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from pydantic import ValidationError

from tunesmith_contract.engine_order import ORDER_FILE, STATE_FILE, EngineOrder, EngineState

#: The folder is in memory or on the node's disk: looking costs nothing.
POLL_SECONDS = 0.2
#: From the signal to vLLM to its end.
END_SECONDS = 30.0
#: Lines of vLLM's log in which the cause of its end is looked for. Each of its processes adds a traceback.
LOG_LINES = 400
#: Last line of a traceback, behind what vLLM's log puts before it.
EXCEPTION = re.compile(r"(?:^|\] )(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Exit)\b: .+)$")
#: Order that was begun last. It outlives this process, which ends with vLLM where a container runs out of memory.
BEGUN_FILE = "begun.json"


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
        return EngineState(
            number=self.order.number,
            exit_code=code,
            message="".join(self._log)[-4096:],
            cause=_find_cause(self._log),
        )

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


def _find_cause(lines: Iterable[str]) -> str:
    """The first exception in a log, which later ones only pass on, and the last one; empty if there is none."""
    found = (EXCEPTION.search(line.rstrip()) for line in lines)
    errors = [match["error"][:500] for match in found if match]
    if not errors:
        return ""
    return errors[0] if errors[0] == errors[-1] else f"{errors[0]}; at last {errors[-1]}"


def serve_orders(folder: Path, command: Sequence[str], stopped: threading.Event) -> None:
    """Serve orders until the event is set.

    Args:
        folder: folder that both containers share.
        command: vLLM's server without the arguments of an order.
        stopped: set at the end of the pod.
    """
    process: EngineProcess | None = None
    done = _report_killed(folder)
    while not stopped.wait(POLL_SECONDS):
        order = _read_order(folder / ORDER_FILE)
        if order is not None and order.number > done:
            done = order.number
            if process is not None:
                process.stop()
            _write(folder / BEGUN_FILE, order.to_json())
            process = EngineProcess(order, command) if order.arguments else None
        if process is not None and (state := process.end_state()):
            _write(folder / STATE_FILE, state.to_json())
            process = None
    if process is not None:
        process.stop()


def _report_killed(folder: Path) -> int:
    """Number of the order that an earlier process of this container began; 0 if this is the first.

    If it was killed with vLLM, the evaluation is told, and vLLM is not started again: it would be killed again.
    """
    begun = _read_order(folder / BEGUN_FILE)
    if begun is None:
        return 0
    if begun.arguments and not (folder / STATE_FILE).exists():
        message = "the container of the engine was killed; it was probably out of memory"
        state = EngineState(number=begun.number, exit_code=-signal.SIGKILL, message=message)
        _write(folder / STATE_FILE, state.to_json())
    return begun.number


def _read_order(path: Path) -> EngineOrder | None:
    try:
        return EngineOrder.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SystemExit(f"{path} is no order of this release: {error}") from error


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
