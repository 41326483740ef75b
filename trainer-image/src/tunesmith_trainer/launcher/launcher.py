"""PID 1 of a training pod: starts workers, forwards signals, writes the termination message.

The gang of workers is static: each attempt is a new Job, and no worker is restarted or re-ranked within it. The
launcher sets the environment of ``torch.distributed`` (the same variables that torchrun sets) and
watches processes itself, where torchrun would turn every failure into exit code 1, kill workers 30 s after
SIGTERM whatever the pod's grace period, and cost PID 1 an import of torch.

Exit codes are the contract's ``ExitCode``:

- all workers succeeded: 0; a worker reported a failure: the code of its category;
- the cgroup's ``oom_kill`` counter grew and a worker failed: 12;
- a worker died without a report after the pod received SIGTERM: 15; otherwise 14, with the end of its log, or 13 if
  that shows NCCL's watchdog, which aborts a process that waits for a lost peer.

If all workers succeed and the first worker of the run leaves no report, the stage is not finished: the first pod runs
the same command once more, in one process that has the memory of all workers.

Of several failures the first one is reported, unless it is a lost connection and another worker failed otherwise: that
one is the cause, also if it was killed and left no report. A worker that the launcher ended is no cause.
The report of an unfinished run names its newest committed checkpoint.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO, TextIO

from tunesmith_contract.exit_codes import ExitCode, FailureCategory, exit_code_of
from tunesmith_contract.layout import CHECKPOINT_FILE_ENV, CPUS_ENV
from tunesmith_contract.report import Checkpoint, Failure, Outcome, RunReport, parse_report
from tunesmith_data.pod.redaction import Redactor
from tunesmith_trainer.cgroup import count_oom_kills

from .allocator import allocator_environment

LOG_TAIL_CHARACTERS = 3000
#: Time between SIGTERM and SIGKILL for the other workers after one has failed.
GRACE_SECONDS_AFTER_FAILURE = 30
DEFAULT_MASTER_PORT = 29500

_CHECKPOINT_FILE = "checkpoint.json"
_WATCHDOG_TEXT = "ProcessGroupNCCL"
_WORKER_DIED = "WorkerDied"

# Unbuffered lines and no progress bars: the output is a log.
_LOG_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True, slots=True)
class Gang:
    """Worker processes of a run, and this pod's position among its pods.

    Attributes:
        workers: number of processes per pod.
        nodes: number of pods of the run.
        node_rank: index of this pod.
        master_addr: host name of the first pod.
        master_port: port of the first worker's rendezvous.
    """

    workers: int = 1
    nodes: int = 1
    node_rank: int = 0
    master_addr: str = "localhost"
    master_port: int = DEFAULT_MASTER_PORT

    def environment(self, local_rank: int) -> dict[str, str]:
        """Variables of ``torch.distributed`` for one worker; none for a gang of one, which needs no connection."""
        if self.workers * self.nodes == 1:
            return {}
        return {
            "RANK": str(self.node_rank * self.workers + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.workers * self.nodes),
            "LOCAL_WORLD_SIZE": str(self.workers),
            "GROUP_RANK": str(self.node_rank),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


def read_gang(workers: int, nodes: int, environment: Mapping[str, str]) -> Gang:
    """Gang of a run; torchrun's ``PET_*`` variables take precedence over the configured numbers."""
    return Gang(
        workers=int(environment.get("PET_NPROC_PER_NODE", workers)),
        nodes=int(environment.get("PET_NNODES", nodes)),
        node_rank=int(environment.get("PET_NODE_RANK", environment.get("JOB_COMPLETION_INDEX", "0"))),
        master_addr=environment.get("PET_MASTER_ADDR", "localhost"),
        master_port=int(environment.get("PET_MASTER_PORT", str(DEFAULT_MASTER_PORT))),
    )


@dataclass(slots=True)
class Worker:
    """A worker process.

    Attributes:
        rank: its rank in the run.
        process: the process, leader of a session of its own.
        report_file: file for its report.
        reader: thread that copies its output to the pod's log.
        tail: the last lines of its output.
        code: its exit code, negative for a signal; None while it runs.
        sent: signals that the launcher has sent to it.
    """

    rank: int
    process: subprocess.Popen[bytes]
    report_file: Path
    reader: threading.Thread
    tail: deque[str]
    code: int | None = None
    sent: set[int] = field(default_factory=set)

    def signal(self, signum: int) -> None:
        """Send a signal to the worker alone, not to its children."""
        if self.code is None:
            self.sent.add(signum)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signum)

    def kill_group(self) -> None:
        """Kill the remaining processes of the worker's session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def report(self) -> RunReport | None:
        """Report that the worker wrote; None if it wrote none."""
        try:
            return parse_report(self.report_file.read_bytes())
        except FileNotFoundError:
            return None

    @property
    def died(self) -> bool:
        """True if it failed without a report of a failure, and by no signal of the launcher."""
        if self.code in {None, ExitCode.SUCCEEDED, ExitCode.PREEMPTED} or -(self.code or 0) in self.sent:
            return False
        report = self.report()
        return report is None or report.failure is None

    @property
    def was_aborted_by_watchdog(self) -> bool:
        """True if NCCL's watchdog ended it because a peer was lost."""
        return self.code == -signal.SIGABRT and _WATCHDOG_TEXT in "".join(self.tail)


@dataclass(slots=True)
class Launcher:
    """Supervisor of a stage's worker processes.

    Attributes:
        stage: the stage's name.
        worker_command: arguments of a worker, without its report file.
        gang: number of workers and addresses of the other pods.
        termination_log: file for the termination message.
        environment: the pod's environment.
        oom_kills: reader of the counter of out-of-memory kills.
    """

    stage: str
    worker_command: list[str]
    gang: Gang
    termination_log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    oom_kills: Callable[[], int] = count_oom_kills
    _workers: list[Worker] = field(default_factory=list)
    _first_failed: Worker | None = None
    _terminated: bool = False

    def run(self) -> ExitCode:
        """Start the workers, wait for all of them, write the termination message, return the exit code."""
        redact = Redactor(self.environment)
        kills_before = self.oom_kills()
        with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
            previous = {
                signum: signal.signal(signum, self._forward) for signum in (signal.SIGTERM, signal.SIGINT)
            }
            try:
                self._run_workers(self.gang, Path(folder), redact)
                if self._is_unfinished():
                    self._run_workers(Gang(), Path(folder), redact)
            finally:
                for signum, handler in previous.items():
                    signal.signal(signum, handler)
            checkpoint_file = Path(folder) / _CHECKPOINT_FILE
            checkpoint = None
            if checkpoint_file.exists():
                checkpoint = Checkpoint.model_validate_json(checkpoint_file.read_bytes())
            report, code = self._conclude(self.oom_kills() > kills_before, checkpoint)
        if report is not None:
            self.termination_log.write_bytes(_redacted(report, redact).to_termination_message())
        return code

    def _run_workers(self, gang: Gang, folder: Path, redact: Redactor) -> None:
        """Start the workers of a gang, and wait until all have ended."""
        self._workers = []
        try:
            for local_rank in range(gang.workers):
                self._workers.append(self._start_worker(gang, local_rank, folder, redact))
            if self._terminated:  # SIGTERM arrived before all workers were there to receive it
                self._forward(signal.SIGTERM, None)
            self._wait()
        finally:
            for worker in self._workers:
                worker.kill_group()
        for worker in self._workers:
            worker.reader.join()

    def _is_unfinished(self) -> bool:
        """True if the workers succeeded, and the first one of the run left the end of the stage to a new process."""
        succeeded = self._first_failed is None and not self._terminated
        return succeeded and self.gang.node_rank == 0 and self._workers[0].report() is None

    def _start_worker(self, gang: Gang, local_rank: int, folder: Path, redact: Redactor) -> Worker:
        report_file = folder / f"report-{local_rank}.json"
        process = subprocess.Popen(
            [*self.worker_command, "--report-file", str(report_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **_LOG_ENVIRONMENT,
                **allocator_environment(self.environment),
                **self.environment,
                **gang.environment(local_rank),
                "OMP_NUM_THREADS": str(self._threads_per_worker(gang)),
                CHECKPOINT_FILE_ENV: str(folder / _CHECKPOINT_FILE),
            },
            start_new_session=True,
        )
        tail: deque[str] = deque(maxlen=100)
        prefix = f"[{local_rank}] " if gang.workers > 1 else ""
        arguments = (process.stdout, sys.stdout, tail, prefix, redact)
        reader = threading.Thread(target=_copy_output, args=arguments, daemon=True)
        reader.start()
        rank = gang.node_rank * gang.workers + local_rank
        return Worker(rank, process, report_file, reader, tail)

    def _threads_per_worker(self, gang: Gang) -> int:
        """OpenMP threads of a worker: its share of the pod's cores, or as written by people."""
        written = self.environment.get("OMP_NUM_THREADS", "")
        if CPUS_ENV not in self.environment and written.isdigit():
            return max(1, int(written))
        cpus = self.environment.get(CPUS_ENV, "")
        cores = int(cpus) if cpus.isdigit() else os.cpu_count() or 1
        # More threads than cores wait for each other.
        return max(1, cores // gang.workers)

    def _forward(self, signum: int, frame: FrameType | None) -> None:
        """Forward SIGTERM to the workers; the wait for them is limited by the pod's grace period alone."""
        self._terminated = True
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    def _wait(self) -> None:
        """Reap workers and orphans adopted by PID 1 until all workers have ended."""
        by_pid = {worker.process.pid: worker for worker in self._workers}
        while by_pid:
            pid, status = os.waitpid(-1, 0)
            worker = by_pid.pop(pid, None)
            if worker is None:
                continue
            worker.code = worker.process.returncode = os.waitstatus_to_exitcode(status)
            if worker.code != ExitCode.SUCCEEDED and self._first_failed is None:
                self._first_failed = worker
                self._stop_other_workers()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _stop_other_workers(self) -> None:
        """Send SIGTERM to the workers that a failed one leaves without a peer, and SIGKILL after a grace period."""
        if self._terminated:
            return
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        if self._first_failed and self._first_failed.code == ExitCode.PREEMPTED:
            # Another pod was preempted; all workers agreed to stop and may still write their checkpoint.
            return
        signal.signal(signal.SIGALRM, self._kill)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS_AFTER_FAILURE)

    def _kill(self, signum: int, frame: FrameType | None) -> None:
        for worker in self._workers:
            worker.signal(signal.SIGKILL)

    def _conclude(self, oom_killed: bool, checkpoint: Checkpoint | None) -> tuple[RunReport | None, ExitCode]:
        """Report and exit code of the run; pods after the first have no report of a success."""
        if self._first_failed is None:
            report = self._workers[0].report()
            if report is not None or self.gang.node_rank > 0:
                return report, ExitCode.SUCCEEDED
            if self._terminated:
                return self._preempted_report(checkpoint), ExitCode.PREEMPTED
            self._first_failed = self._workers[0]
        failure = self._find_failure(self._first_failed, oom_killed)
        if failure is None:
            return self._preempted_report(checkpoint), ExitCode.PREEMPTED
        report = RunReport.model_validate(
            {"stage": self.stage, "outcome": Outcome.FAILED, "failure": failure, "checkpoint": checkpoint}
        )
        return report, exit_code_of(failure.category)

    def _preempted_report(self, checkpoint: Checkpoint | None) -> RunReport:
        return RunReport.model_validate(
            {"stage": self.stage, "outcome": Outcome.PREEMPTED, "checkpoint": checkpoint}
        )

    def _find_failure(self, first: Worker, oom_killed: bool) -> Failure | None:
        """Failure to report; None if the run was preempted.

        Args:
            first: the worker that failed first.
        """
        if oom_killed:
            return self._out_of_memory_failure(self._find_killed(first))
        if first.code == ExitCode.PREEMPTED:
            return None
        failures = self._list_failures(first)
        causes = [failure for failure in failures if failure.category is not FailureCategory.COMMUNICATION]
        if self._terminated:
            # Workers that end at different times lose their connections, and those that do not listen are killed.
            return next((failure for failure in causes if failure.reason != _WORKER_DIED), None)
        return next(iter([*causes, *failures]), None) or self._death_without_report(first)

    def _list_failures(self, first: Worker) -> list[Failure]:
        """Failure of each worker that reported one or died, that of the first worker first."""
        failures = []
        for worker in [first, *(worker for worker in self._workers if worker is not first)]:
            report = worker.report()
            if report is not None and report.failure is not None:
                failures.append(report.failure.model_copy(update={"log": _log_tail(worker)}))
            elif worker.died:
                failures.append(self._death_without_report(worker))
        return failures

    def _find_killed(self, first: Worker) -> Worker:
        """The worker that the kernel killed for its memory; the first one if that was a child of it."""
        killed = (worker for worker in self._workers if worker.died and worker.code == -signal.SIGKILL)
        return next(killed, first)

    def _out_of_memory_failure(self, worker: Worker) -> Failure:
        return Failure(
            category=FailureCategory.OUT_OF_MEMORY,
            reason="OutOfMemory",
            message="the container's memory limit was exceeded: raise resources.limits.memory, or lower "
            "batchSize or maxLength",
            rank=worker.rank,
            exit_code=worker.code,
            log=_log_tail(worker),
        )

    def _death_without_report(self, worker: Worker) -> Failure:
        code = worker.code or 0
        if worker.was_aborted_by_watchdog:
            return Failure(
                category=FailureCategory.COMMUNICATION,
                reason="CommunicationLost",
                message=f"worker {worker.rank} timed out waiting for another worker: see its log",
                rank=worker.rank,
                exit_code=code,
                log=_log_tail(worker),
            )
        ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return Failure(
            category=FailureCategory.INFRASTRUCTURE,
            reason=_WORKER_DIED,
            message=f"worker {worker.rank} {ending} without a report: see its log",
            rank=worker.rank,
            exit_code=code,
            log=_log_tail(worker),
        )


def _copy_output(source: BinaryIO, target: TextIO, tail: deque[str], prefix: str, redact: Redactor) -> None:
    """Copy a worker's output line by line, without secrets, and keep its last lines in ``tail``."""
    with source:
        for raw in source:
            line = redact(raw.decode(errors="replace"))
            tail.append(line)
            target.write(prefix + line)
            target.flush()


def _log_tail(worker: Worker) -> str:
    return "".join(worker.tail)[-LOG_TAIL_CHARACTERS:]


def _redacted(report: RunReport, redact: Redactor) -> RunReport:
    if report.failure is None:
        return report
    failure = report.failure
    clean = failure.model_copy(update={"message": redact(failure.message), "log": redact(failure.log)})
    return report.model_copy(update={"failure": clean})
