"""Launcher with real worker processes: exit codes, signals, termination message."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from stages.forked_pods import ScriptedPod

from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.report import TERMINATION_MESSAGE_BYTES, Outcome, RunReport, parse_report
from tunesmith_data import failures
from tunesmith_trainer import worker
from tunesmith_trainer.launcher.launcher import Gang, read_gang

# The first pod waits for the process that all are forked from, which imports torch, TRL and DeepSpeed.
pytestmark = pytest.mark.timeout(600)

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from tunesmith_trainer import worker
from tunesmith_data.failures import *
rank = int(os.environ.get("RANK", "0"))

def stage(action):
    worker.run_stage = lambda config, storage: action()
    config = Path({config!r})
    sys.exit(worker.main(["--stage", "prepare", "--config", str(config), "--mount-root", "/", *sys.argv[1:]]))

def fail(error):
    raise error
"""

CONFIG = {
    "stage": "prepare",
    "owner": {"kind": "FineTuneJob", "namespace": "ns", "name": "n", "uid": "u"},
    "baseModel": "pvc://m",
    "train": "pvc://d/x",
    "validation": {},
    "method": {"sft": {}},
    "seed": 1,
    "output": "pvc://o",
}


class Pod:
    """A launcher in a process of its own, with workers that run a script."""

    def __init__(
        self,
        folder: Path,
        body: str,
        *,
        workers: int = 1,
        oom_kills: tuple[int, int] = (0, 0),
        patience: float = 30,
        **env: str,
    ) -> None:
        config = folder / "run.json"
        config.write_text(json.dumps(CONFIG))
        self.log = folder / "termination-log"
        script = PREAMBLE.format(config=str(config)) + textwrap.dedent(body)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env}
        self.process = ScriptedPod(script, workers, self.log, oom_kills, patience, environment)

    def wait_for(self, text: str) -> None:
        assert any(text in line for line in self.process.stdout)

    def finish(self) -> tuple[int | None, RunReport | None, str]:
        output, _ = self.process.communicate(timeout=60)
        message = self.log.read_bytes() if self.log.exists() else b""
        assert len(message) <= TERMINATION_MESSAGE_BYTES
        return self.process.wait(), parse_report(message), output


FAILURES: list[tuple[str, ExitCode, str]] = [
    ("UserError('Bad', 'write x')", ExitCode.USER_ERROR, "Bad"),
    ("DataError('Rows', 'write y')", ExitCode.DATA_ERROR, "Rows"),
    ("MemoryError()", ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
    ("RuntimeError('CUDA out of memory. Tried')", ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
    (
        "RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1131, please report')",
        ExitCode.OUT_OF_MEMORY,
        "OutOfMemory",
    ),
    ("type('OutOfMemoryError', (RuntimeError,), {})('x')", ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
    ("type('DistNetworkError', (RuntimeError,), {})('x')", ExitCode.COMMUNICATION, "CommunicationLost"),
    ("RuntimeError('[gloo] Connection closed by peer')", ExitCode.COMMUNICATION, "CommunicationLost"),
    ("OSError(28, 'No space left on device')", ExitCode.INFRASTRUCTURE, "StorageFull"),
    ("OSError(5, 'Input/output error')", ExitCode.INFRASTRUCTURE, "InputOutputError"),
    ("ConnectionResetError()", ExitCode.INFRASTRUCTURE, "InputOutputError"),
    ("RuntimeError('CUDA error: ECC')", ExitCode.INFRASTRUCTURE, "DeviceError"),
    ("PermissionError(13, 'denied')", ExitCode.USER_ERROR, "AccessDenied"),
    ("OSError(30, 'Read-only file system', '/proc/cache')", ExitCode.USER_ERROR, "AccessDenied"),
    ("OSError(30, 'Read-only file system', '/nowhere/cache')", ExitCode.INTERNAL_ERROR, "ReadOnlyImage"),
    ("ImportError('no module')", ExitCode.INTERNAL_ERROR, "UnexpectedError"),
    ("type('RevisionNotFoundError', (OSError,), {})('no')", ExitCode.USER_ERROR, "ModelNotFound"),
    ("KeyError('bug')", ExitCode.INTERNAL_ERROR, "UnexpectedError"),
]
#: The first failure of each exit code.
KINDS = {code: (error, code, reason) for error, code, reason in reversed(FAILURES)}


@pytest.mark.parametrize(("error", "code", "reason"), FAILURES)
def test_each_failure_has_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, code: ExitCode, reason: str
) -> None:
    def stage(*_: Any) -> None:
        raise eval(error, dict(vars(failures)))

    config, report_file = tmp_path / "run.json", tmp_path / "report.json"
    config.write_text(json.dumps(CONFIG))
    monkeypatch.setattr(worker, "run_stage", stage)
    umask = os.umask(0)
    try:
        arguments = ["--stage", "prepare", "--config", str(config), "--mount-root", "/"]
        returned = worker.main([*arguments, "--report-file", str(report_file)])
    finally:
        os.umask(umask)
    report = parse_report(report_file.read_bytes())
    assert returned == code
    assert report
    assert report.failure
    assert (report.failure.reason, report.failure.exit_code) == (reason, code)


@pytest.mark.parametrize(("error", "code", "reason"), KINDS.values())
def test_a_failure_of_each_kind_is_the_pods(tmp_path: Path, error: str, code: ExitCode, reason: str) -> None:
    returned, report, _ = Pod(tmp_path, f"stage(lambda: fail({error}))").finish()
    assert returned == code
    assert report
    assert report.outcome is Outcome.FAILED
    assert report.failure
    assert (report.failure.reason, report.failure.exit_code, report.failure.rank) == (reason, code, 0)
    assert "Traceback" in report.failure.log


def test_success_and_a_wrong_configuration(tmp_path: Path) -> None:
    done = "stage(lambda: worker.RunReport(stage='prepare', outcome='Succeeded'))"
    returned, report, _ = Pod(tmp_path, done).finish()
    assert returned == 0
    assert report
    assert report.outcome is Outcome.SUCCEEDED
    returned, report, _ = Pod(
        tmp_path,
        "config = None; Path(sys.argv[-1]).parent; sys.exit(worker.main(['--stage', "
        "'train', '--config', '/dev/null', '--mount-root', '/', *sys.argv[1:]]))",
    ).finish()
    assert returned == ExitCode.USER_ERROR
    assert report
    assert report.failure
    assert report.failure.reason == "InvalidConfig"


@pytest.mark.parametrize(
    ("variables", "workers", "each"),
    [
        ({"TUNESMITH_CPUS": "8", "OMP_NUM_THREADS": "8"}, 1, "8"),
        ({"TUNESMITH_CPUS": "8", "OMP_NUM_THREADS": "8"}, 3, "2"),
        ({"TUNESMITH_CPUS": "2", "OMP_NUM_THREADS": "2"}, 4, "1"),
        ({"OMP_NUM_THREADS": "6"}, 2, "6"),
    ],
)
def test_workers_share_the_cores_of_their_pod_unless_their_threads_are_written(
    tmp_path: Path, variables: dict[str, Any], workers: int, each: str
) -> None:
    body = """
    print("threads: " + os.environ["OMP_NUM_THREADS"], flush=True)
    print("memory: " + os.environ["PYTORCH_ALLOC_CONF"], flush=True)
    stage(lambda: worker.RunReport(stage='prepare', outcome='Succeeded'))
    """
    _, _, output = Pod(tmp_path, body, workers=workers, **variables).finish()
    assert output.count(f"threads: {each}\n") == workers
    assert output.count("memory: expandable_segments:True\n") == workers


def test_a_worker_that_dies_without_a_word(tmp_path: Path) -> None:
    body = "print('last words', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    returned, report, _ = Pod(tmp_path, body).finish()
    assert returned == ExitCode.INFRASTRUCTURE
    assert report
    assert report.failure
    assert "SIGSEGV" in report.failure.message
    assert "last words" in report.failure.log


def test_a_killed_child_with_a_grown_counter_is_out_of_memory(tmp_path: Path) -> None:
    body = "os.kill(os.getpid(), signal.SIGKILL)"
    assert Pod(tmp_path, body).finish()[0] == ExitCode.INFRASTRUCTURE
    returned, report, _ = Pod(tmp_path, body, oom_kills=(2, 3)).finish()
    assert returned == ExitCode.OUT_OF_MEMORY
    assert report
    assert report.failure
    assert report.failure.category is FailureCategory.OUT_OF_MEMORY


def test_the_cause_wins_over_lost_connections(tmp_path: Path) -> None:
    body = """
    if rank == 1:
        stage(lambda: fail(DataError('Rows', 'rank 1 knows')))
    signal.signal(signal.SIGTERM, lambda *_: stage(lambda: fail(RuntimeError('gloo: Connection closed'))))
    signal.pause()
    """
    returned, report, _ = Pod(tmp_path, body, workers=2).finish()
    assert returned == ExitCode.DATA_ERROR
    assert report
    assert report.failure
    assert (report.failure.rank, report.failure.message) == (1, "rank 1 knows")


LOST = "stage(lambda: fail(RuntimeError('gloo: Connection closed')))"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
#: Ways in which two workers end, of which the one of rank 1 is killed.
ONE_KILLED = {
    "the other one hears of it": f"""
        signal.signal(signal.SIGTERM, lambda *_: {LOST})
        {KILLED} if rank == 1 else signal.pause()
        """,
    "the other one ends before": f"""
        signal.signal(signal.SIGTERM, lambda *_: {KILLED})
        ready = Path(sys.argv[-1]).with_name("ready")
        if rank == 1:
            ready.touch()
            signal.pause()
        while not ready.exists():
            time.sleep(0.01)
        {LOST}
        """,
}


@pytest.mark.parametrize("body", ONE_KILLED.values(), ids=ONE_KILLED)
def test_a_killed_worker_is_the_cause_of_lost_connections(tmp_path: Path, body: str) -> None:
    returned, report, _ = Pod(tmp_path, body, workers=2).finish()
    assert returned == ExitCode.INFRASTRUCTURE
    assert report
    assert report.failure
    assert (report.failure.reason, report.failure.rank) == ("WorkerDied", 1)
    assert "SIGKILL" in report.failure.message


def test_the_worker_that_the_memory_limit_ended_is_named(tmp_path: Path) -> None:
    body = ONE_KILLED["the other one ends before"]
    returned, report, _ = Pod(tmp_path, body, workers=2, oom_kills=(0, 1)).finish()
    assert returned == ExitCode.OUT_OF_MEMORY
    assert report
    assert report.failure
    assert report.failure.rank == 1


def test_a_worker_that_the_launcher_ends_is_no_cause(tmp_path: Path) -> None:
    body = f"""
        ready = Path(sys.argv[-1]).with_name("ready")
        if rank == 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ready.touch()
            signal.pause()
        while not ready.exists():
            time.sleep(0.01)
        {LOST}
        """
    returned, report, _ = Pod(tmp_path, body, workers=2, patience=0.3).finish()
    assert returned == ExitCode.COMMUNICATION
    assert report
    assert report.failure
    assert report.failure.rank == 0


def test_workers_know_their_place(tmp_path: Path) -> None:
    body = """
    print({k: os.environ[k] for k in ('RANK', 'WORLD_SIZE', 'MASTER_PORT')}, flush=True)
    stage(lambda: worker.RunReport(stage='prepare', outcome='Succeeded'))
    """
    returned, _, output = Pod(tmp_path, body, workers=2).finish()
    assert returned == 0
    assert "[1] {'RANK': '1', 'WORLD_SIZE': '2'" in output


@pytest.mark.parametrize(
    ("on_signal", "code"),
    [
        ("stage(lambda: fail(Preempted()))", ExitCode.PREEMPTED),
        ("stage(lambda: worker.RunReport(stage='prepare', outcome='Succeeded'))", ExitCode.SUCCEEDED),
        ("os._exit(0)", ExitCode.PREEMPTED),
        ("stage(lambda: fail(UserError('Bad', 'x')))", ExitCode.USER_ERROR),
        ("stage(lambda: fail(RuntimeError('NCCL')))", ExitCode.PREEMPTED),
    ],
)
def test_sigterm_reaches_the_worker_who_decides(tmp_path: Path, on_signal: str, code: ExitCode) -> None:
    body = f"""
    signal.signal(signal.SIGTERM, lambda *_: {on_signal})
    print("ready", flush=True)
    signal.pause()
    """
    pod = Pod(tmp_path, body)
    pod.wait_for("ready")
    pod.process.send_signal(signal.SIGTERM)
    returned, report, _ = pod.finish()
    assert returned == code
    if code is ExitCode.PREEMPTED:
        assert report
        assert report.outcome is Outcome.PREEMPTED


def test_an_unfinished_stage_goes_on_in_one_process(tmp_path: Path) -> None:
    body = """
    print("process of", os.environ.get("WORLD_SIZE", "one"), os.environ["OMP_NUM_THREADS"], flush=True)
    stage(lambda: None if "RANK" in os.environ else worker.RunReport(stage='prepare', outcome='Succeeded'))
    """
    returned, report, output = Pod(tmp_path, body, workers=2, TUNESMITH_CPUS="8").finish()
    assert returned == 0
    assert report
    assert report.outcome is Outcome.SUCCEEDED
    assert (output.count("process of 2 4"), output.count("process of one 8")) == (2, 1)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("fail(MemoryError())", ExitCode.OUT_OF_MEMORY),
        ("None", ExitCode.INFRASTRUCTURE),
        ("os.kill(os.getppid(), signal.SIGTERM) or signal.pause()", ExitCode.PREEMPTED),
    ],
)
def test_a_failure_of_the_process_that_finishes_is_the_stages(
    tmp_path: Path, failure: str, code: ExitCode
) -> None:
    body = f"stage(lambda: None if 'RANK' in os.environ else {failure})"
    returned, report, _ = Pod(tmp_path, body, workers=2).finish()
    assert returned == code
    assert report


def test_a_worker_that_sigterm_kills_is_preempted(tmp_path: Path) -> None:
    pod = Pod(tmp_path, "print('ready', flush=True); signal.pause()")
    pod.wait_for("ready")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.finish()[0] == ExitCode.PREEMPTED


def test_secrets_reach_neither_log_nor_last_word(tmp_path: Path) -> None:
    token, password = "hf_" + "a" * 30, "correct-horse"
    body = (
        f"print('{token}', flush=True); stage(lambda: fail(UserError('Bad', 'with {password} and {token}')))"
    )
    pod = Pod(tmp_path, body, DB_PASSWORD=password)
    _, report, output = pod.finish()
    assert report
    for text in (output, report.to_json()):
        assert token not in text
        assert password not in text
        assert "[redacted]" in text


def test_long_words_are_cut_to_what_kubelet_keeps(tmp_path: Path) -> None:
    body = "face = chr(0x1F600) * 9000; print(face, flush=True); stage(lambda: fail(UserError('Bad', face)))"
    returned, report, _ = Pod(tmp_path, body).finish()
    assert returned == ExitCode.USER_ERROR
    assert report


def test_gang_is_read_from_the_run_and_the_pod() -> None:
    assert read_gang(1, 1, {}).environment(0) == {}
    gang = read_gang(2, 3, {"JOB_COMPLETION_INDEX": "2", "PET_MASTER_ADDR": "run-0", "PET_MASTER_PORT": "1"})
    assert gang == Gang(2, 3, 2, "run-0", 1)
    assert gang.environment(1)["RANK"] == "5"
    assert gang.environment(1)["WORLD_SIZE"] == "6"


def test_the_command_line_end_to_end(tmp_path: Path) -> None:
    config: dict[str, Any] = CONFIG | {"baseModel": "pvc://models/absent"}
    (tmp_path / "run.json").write_text(json.dumps(config))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tunesmith_trainer", "prepare", "--config", str(tmp_path / "run.json")]
    command += ["--mount-root", str(tmp_path), "--termination-log", str(log)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    report = parse_report(log.read_bytes())
    assert done.returncode == ExitCode.USER_ERROR
    assert report
    assert report.failure
    assert report.failure.reason == "ModelNotFound"
    assert "pvc://models/absent" in report.failure.message


CHECKPOINT = '{"step":4,"uri":"pvc://o/c","digest":"sha256:%s","time":"2026-01-01T00:00:00Z"}' % ("0" * 64)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", Outcome.FAILED),
        ("stage(lambda: fail(Preempted()))", Outcome.PREEMPTED),
    ],
)
def test_the_last_word_names_the_newest_checkpoint_though_its_writer_is_gone(
    tmp_path: Path, end: str, outcome: Outcome
) -> None:
    body = f"Path(os.environ['TUNESMITH_CHECKPOINT_FILE']).write_text('{CHECKPOINT}'); {end}"
    _, report, _ = Pod(tmp_path, body).finish()
    assert report
    assert report.outcome is outcome
    assert report.checkpoint
    assert report.checkpoint.step == 4


def test_a_worker_that_nccls_watchdog_ends_has_lost_its_connection(tmp_path: Path) -> None:
    body = "print('[Rank 0] ProcessGroupNCCL: Watchdog caught collective operation timeout', flush=True)"
    returned, report, _ = Pod(tmp_path, f"{body}; os.abort()").finish()
    assert returned == ExitCode.COMMUNICATION
    assert report
    assert report.failure
    assert (report.failure.reason, report.failure.rank) == ("CommunicationLost", 0)


@pytest.mark.parametrize(("first", "code"), [("Preempted()", 15), ("UserError('Bad', 'x')", 10)])
def test_only_a_failure_hurries_the_others(tmp_path: Path, first: str, code: int) -> None:
    """After an agreed stop the first rank may still be at its checkpoint, however long that takes."""
    body = f"""
    ready, saved = Path({str(tmp_path / "ready")!r}), Path({str(tmp_path / "saved")!r})
    if rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready.touch()
        time.sleep({1 if code == ExitCode.PREEMPTED else 1000})  # longer than the launcher's patience
        saved.touch()
        stage(lambda: fail(Preempted()))
    while not ready.exists():
        time.sleep(0.01)
    stage(lambda: fail({first}))
    """
    assert Pod(tmp_path, body, workers=2, patience=0.3).finish()[0] == code
    assert (tmp_path / "saved").exists() is (code == ExitCode.PREEMPTED)
