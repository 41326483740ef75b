"""Training pods as processes that are forked from one with torch loaded.

A worker that starts anew takes ten seconds of processor time to import torch, transformers, TRL and DeepSpeed. Here
this happens once per test run. Launcher and worker are processes of their own all the same: they get signals, are
killed, and run the product's own code from their command lines on.
"""

import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from tunesmith_data.pod.workspace import Workspace

# Modules that a worker imports when it trains.
PRELOADED = (
    "deepspeed",
    "peft",
    "bitsandbytes",
    "tensorboard",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "tunesmith_trainer.train.stage",
    "tunesmith_trainer.worker",
)

_context = multiprocessing.get_context("forkserver")


class ForkedProcess:
    """A launcher with its workers; the part of `subprocess.Popen` that tests use.

    Args:
        run: runs the launcher; it gets the arguments and the connection that its output goes to.
    """

    def __init__(self, run: Callable[..., None], *arguments: Any) -> None:
        _context.set_forkserver_preload(list(PRELOADED))
        reader, writer = _context.Pipe(duplex=False)
        self.args = [str(argument) for argument in arguments]
        self._process = _context.Process(target=run, args=(*arguments, writer))
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), errors="replace")
        reader.close()
        # A test that fails leaves its pod behind, and the end of the test run would wait for it.
        self._end = weakref.finalize(self, self._process.kill)

    @property
    def pid(self) -> int:
        """Process id of the launcher."""
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code of the launcher; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the launcher."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the launcher."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the launcher; its exit code.

        Raises:
            TimeoutExpired: it did not end in time.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Read all output and wait for the end; the output, and None as there is no other stream."""
        output = self.stdout.read()
        self.stdout.close()
        self.wait(timeout)
        return output, None


class PodProcess(ForkedProcess):
    """A pod of a training run.

    Args:
        arguments: command line of ``python -m tunesmith_trainer``.
        environment: all variables of the pod.
        keep_work_files: work files of a finished run stay, to be looked at.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, keep_work_files: bool = False
    ) -> None:
        super().__init__(_run_launcher, list(arguments), dict(environment), keep_work_files)


class ScriptedPod(ForkedProcess):
    """A launcher whose workers run a script.

    Args:
        script: Python source of each worker, in place of its command line.
        workers: how many there are.
        log: the termination message.
        oom_kills: what the counter of kills for lack of memory says, look by look.
        patience: seconds that workers have to end after the failure of one.
        environment: all variables of the pod.
    """

    def __init__(
        self,
        script: str,
        workers: int,
        log: Path,
        oom_kills: Sequence[int],
        patience: float,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(
            _run_scripted_launcher, script, workers, log, tuple(oom_kills), patience, dict(environment)
        )


class _ForkedWorker:
    """What the launcher uses of `subprocess.Popen`, without a new interpreter."""

    returncode: int | None = None

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], **_: Any) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _run_worker(command, env, writer)
        os.close(writer)
        self.stdout = os.fdopen(reader, "rb")


_FORKED = SimpleNamespace(Popen=_ForkedWorker, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)


def _run_launcher(
    arguments: Sequence[str], environment: Mapping[str, str], keep_work_files: bool, output: Connection
) -> None:
    from tunesmith_trainer import __main__ as command

    _become_launcher(environment, output)
    if keep_work_files:
        Workspace.prune = lambda self: None  # type: ignore[method-assign]
    sys.exit(command.main(arguments))


def _run_scripted_launcher(
    script: str,
    workers: int,
    log: Path,
    oom_kills: Sequence[int],
    patience: float,
    environment: Mapping[str, str],
    output: Connection,
) -> None:
    launcher = _become_launcher(environment, output)
    vars(launcher)["GRACE_SECONDS_AFTER_FAILURE"] = patience
    counts = iter(oom_kills)
    command = [sys.executable, "-c", script]
    gang = launcher.Gang(workers=workers)
    sys.exit(launcher.Launcher("train", command, gang, log, oom_kills=lambda: next(counts)).run())


def _become_launcher(environment: Mapping[str, str], output: Connection) -> ModuleType:
    """Module of the launcher in its new process, with workers that are forked."""
    from tunesmith_trainer.launcher import launcher

    _take_over(environment, output.fileno())
    vars(launcher)["subprocess"] = _FORKED
    return launcher


def _run_worker(command: Sequence[str], environment: Mapping[str, str], output: int) -> NoReturn:
    from tunesmith_trainer import worker

    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _take_over(environment, output)
        if command[1] == "-c":
            sys.argv = list(command[2:])
            exec(command[2], {"__name__": "__main__"})
            code = 0
        else:
            code = worker.main(command[command.index("tunesmith_trainer.worker") + 1 :])
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        # Not what runs at the exit of an interpreter: it would remove the temporary folders of the launcher.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


def _take_over(environment: Mapping[str, str], output: int) -> None:
    """Environment and output of a new process; streams are new, as another thread may have held their locks.

    What was there before is no garbage: looking through it would copy the memory that the processes share.
    """
    gc.freeze()
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
