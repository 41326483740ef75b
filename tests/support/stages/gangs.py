"""Pods of a training run as local processes: launchers with their workers."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from servers.ports import free_port
from stages.forked_pods import PodProcess

from tunesmith_contract.report import RunReport, parse_report
from tunesmith_contract.run_config import TrainConfig


class Pod:
    """One launcher.

    Attributes:
        process: PID 1 of the pod.
        lines: its log so far.
    """

    def __init__(self, process: PodProcess, log: Path, on_line: Callable[[str], None] | None) -> None:
        self.process = process
        self.lines: list[str] = []
        self._log = log
        self._on_line = on_line
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as lines:
            self._follow(lines)

    def _follow(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.lines.append(line)
            if self._on_line:
                self._on_line(line)

    def workers(self) -> list[int]:
        """Process ids of its workers, by local rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def end(self, timeout: float) -> int:
        """Wait for the end; the exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("".join(self.lines)) from None
        self._reader.join()
        return code

    @property
    def output(self) -> str:
        """The whole log."""
        return "".join(self.lines)

    @property
    def report(self) -> RunReport:
        """The last word."""
        report = parse_report(self._log.read_bytes())
        assert report, self.output
        return report


def start_gang(
    root: Path,
    config: TrainConfig,
    *,
    nodes: int = 1,
    workers: int = 1,
    on_line: Callable[[str], None] | None = None,
    disks: Path | None = None,
    **env: str,
) -> list[Pod]:
    """Start all pods of one attempt; ``on_line`` sees the log of the first. Work files of a finished run stay.

    Args:
        disks: a folder for the pods' own disks, which are empty; without it they share that of this machine.
    """
    folder = root / "pods"
    folder.mkdir(exist_ok=True)
    run = folder / f"{config.owner.uid}.json"
    run.write_text(config.to_json())
    port = free_port()
    pods = []
    for node in range(nodes):
        log = folder / f"{config.owner.uid}-{node}.log"
        log.unlink(missing_ok=True)
        log.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "PET_NPROC_PER_NODE": str(workers),
            "PET_NNODES": str(nodes),
            "JOB_COMPLETION_INDEX": str(node),
            "PET_MASTER_PORT": str(port),
            **env,
        }
        if disks is not None:
            (disks / str(node)).mkdir(parents=True)
            environment["TMPDIR"] = str(disks / str(node))
        arguments = ["train", "--config", str(run), "--mount-root", str(root), "--termination-log", str(log)]
        process = PodProcess(arguments, environment, keep_work_files=True)
        pods.append(Pod(process, log, on_line if node == 0 else None))
    return pods


def end_gang(pods: Sequence[Pod], timeout: float = 120) -> list[int]:
    """Exit codes of all pods."""
    return [pod.end(timeout) for pod in pods]


def history(checkpoints: Path) -> list[dict[str, Any]]:
    """Everything that was logged at steps, exactly, by the last committed checkpoint; times left out."""
    folders = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    state = json.loads((folders[-1] / "trainer_state.json").read_text())
    kept = ("step", "loss", "grad_norm", "learning_rate", "eval_loss", "entropy")
    return [{name: entry[name] for name in kept if name in entry} for entry in state["log_history"]]


def losses(checkpoints: Path) -> dict[int, float]:
    """The training loss by step."""
    return {entry["step"]: entry["loss"] for entry in history(checkpoints) if "loss" in entry}


def kill(pid: int) -> None:
    """Kill a process as the kernel does."""
    os.kill(pid, signal.SIGKILL)
