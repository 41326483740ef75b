"""Code of answers in the sandbox: what passes, what fails, and attacks that reach nothing."""

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith_data.failures import InfrastructureError
from tunesmith_evaluation.metrics.answers import Answer, Call, Expected, Question
from tunesmith_evaluation.metrics.code_tests import CodeTests, RightAnswer, find_code, require_sandbox
from tunesmith_evaluation.metrics.sandbox import server as server_module
from tunesmith_evaluation.metrics.sandbox.confinement import ConfinementUnavailable
from tunesmith_evaluation.metrics.sandbox.runner import CodeResult, LocalCodeRunner
from tunesmith_evaluation.metrics.sandbox.server import SandboxServer, SocketCodeRunner
from tunesmith_evaluation.stage.scorers import open_code_runner

SECRET = "sesame-open-1234"
ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> LocalCodeRunner:
    return LocalCodeRunner(tmp_path_factory.mktemp("runs"))


def test_tests_decide(runner: LocalCodeRunner) -> None:
    assert runner.run(ADD, "assert add(1, 2) == 3", 10) == CodeResult(True)
    assert runner.run(ADD, "assert add(1, 2) == 4, 'not 4'", 10) == CodeResult(False, "AssertionError: not 4")
    assert runner.run("def add(a", "", 10).reason.startswith("SyntaxError")
    assert "NameError" in runner.run("pass", "add(1, 2)", 10).reason


@pytest.mark.parametrize(
    "code",
    [
        "import json, os, re, math, random\nopen('own', 'w').write(json.dumps({}))\nassert os.listdir() == ['own']",
        "import threading\nthread = threading.Thread(target=print)\nthread.start()\nthread.join()",
        "import ctypes\nassert ctypes.CDLL(None).syscall(41, 2, 1, 0) == -1",
        "if __name__ == '__main__':\n    raise SystemExit(1)",
        "print('x' * 10_000_000)\nimport sys\nsys.stderr.write('y' * 1_000_000)",
    ],
    ids=["own file", "threads", "a system call that is refused", "main", "output"],
)  # fmt: skip
def test_harmless_code_passes(runner: LocalCodeRunner, code: str) -> None:
    assert runner.run(code, "", 20) == CodeResult(True)


ATTACKS = {
    "leaves early": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "forges a reply": "import os\nfor number in range(3, 20):\n    try:\n"
    "        os.write(number, b'{\"passed\": \"x\"}\\n')\n"
    "    except OSError:\n        pass",
    "closes everything": "import os\nos.closerange(0, 100)",
    "hangs": "while True:\n    pass",
    "sleeps": "import time\ntime.sleep(60)",
    "ignores signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n    pass",
    "forks": "import os\nos.fork()",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "subprocess": "import subprocess\nsubprocess.run(['/bin/true'])",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "memory": "x = bytearray(8 << 30)",
    "memory in steps": "x = []\nwhile True:\n    x.append(bytearray(1 << 26))",
    "big file": "with open('big', 'wb') as stream:\n    while True:\n        stream.write(bytes(1 << 20))",
    "many files": "n = 0\nwhile True:\n    n += 1\n    open(f'f{n}', 'wb').write(bytes(1 << 20))",
    "open files": "x = [open('f', 'w') for _ in range(1000)]",
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', 1), 1)",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills itself": "import os\nos.kill(os.getpid(), 9)",
    "reads a system file": "open('/etc/passwd').read()",
    "reads environments": "open('/proc/self/environ').read()",
    "reads its parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
    "writes elsewhere": "open('/tmp/sandbox-was-here', 'w')",
    "writes to shared memory": "open('/dev/shm/sandbox-was-here', 'w')",
    "links outside": "import os\nos.symlink('/etc', 'etc')\nopen('etc/passwd').read()",
    "lists folders": "import os\nos.listdir('/root')",
    "becomes root": "import os\nos.setuid(0)\nopen('/etc/shadow')",
    "endless recursion": "def f():\n    return f()\nf()",
    "deep syntax": "x = " + "(" * 5000,
    "error that fails": "class E(Exception):\n    def __str__(self):\n        raise self\nraise E",
    "clean-up that hangs": "import atexit, time\natexit.register(time.sleep, 60)\nraise ValueError",
    "raises limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "lowers its parent's limits": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (1, 1))",
    "segfault": "import ctypes\nctypes.string_at(0)",
}  # fmt: skip


@pytest.mark.parametrize("code", ATTACKS.values(), ids=ATTACKS)
def test_attacks_fail_and_end(runner: LocalCodeRunner, code: str) -> None:
    started = time.monotonic()
    result = runner.run(code, "", 1)
    assert not result.passed
    assert result.reason
    assert len(result.reason) <= 500
    assert time.monotonic() - started < 8
    assert not Path("/tmp/sandbox-was-here").exists()
    assert not Path("/dev/shm/sandbox-was-here").exists()


def test_network_is_out_of_reach(runner: LocalCodeRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert "not permitted" in runner.run(code, "", 5).reason


def test_secrets_are_out_of_reach(
    runner: LocalCodeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o666)
    monkeypatch.setenv("API_KEY", SECRET)
    assert "Permission denied" in runner.run(f"open({str(tmp_path / 'token')!r})", "", 5).reason
    assert "KeyError" in runner.run("import os\nos.environ['API_KEY']", "", 5).reason
    assert "Permission denied" in runner.run(f"open({str(tmp_path / 'new')!r}, 'w')", "", 5).reason


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    runner = LocalCodeRunner(tmp_path)
    assert runner.run("import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')", "", 5).passed
    assert not runner.run("open('a', 'w')\nwhile True:\n    pass", "", 0.5).passed
    assert list(tmp_path.iterdir()) == []


def test_programs_that_are_too_large_are_not_run(runner: LocalCodeRunner) -> None:
    assert "larger than" in runner.run("#" * (1 << 20), "pass", 5).reason


def test_without_confinement_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(ConfinementUnavailable, match="s390x"):
        LocalCodeRunner(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "sandbox.sock"
    with SandboxServer(path, LocalCodeRunner(tmp_path), parallel=2) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_the_server_runs_code_for_others(server: Path) -> None:
    client = SocketCodeRunner(server)
    assert client.run(ADD, "assert add(1, 2) == 3", 10) == CodeResult(True)
    assert client.run(ADD, "assert add(1, 2) == 4", 10) == CodeResult(False, "AssertionError: ")
    assert (server.stat().st_mode & 0o777) == 0o660
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server))
        connection.sendall(b"[]\n")
        assert b"not a request" in connection.recv(4096)


def test_the_program_serves_until_it_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.sock"
    command = [sys.executable, "-m", "tunesmith_evaluation.metrics.sandbox", str(path), str(tmp_path)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    with subprocess.Popen(command, env=environment) as process:
        client = SocketCodeRunner(path, sleep=lambda seconds: time.sleep(0.1))
        client.wait()
        assert client.run(ADD, "assert add(1, 2) == 3", 10).passed
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not path.exists()


#: Starts the program after its arguments with a seccomp filter, as a container runtime does, by which the first system
#: call of Landlock fails with an error.
RUNTIME = """
import ctypes, os, struct, sys
error, *command = sys.argv[1:]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | int(error)), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
libc = ctypes.CDLL(None)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *command])
"""


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errno.EPERM, "seccomp profile of the container runtime refuses it"),
        (errno.EOPNOTSUPP, "boot parameter lsm="),
        (errno.ENOSYS, "Linux has it since 5.13"),
    ],
)
def test_a_sandbox_without_landlock_runs_nothing_and_says_what_to_do(
    tmp_path: Path, error: int, advice: str
) -> None:
    path = tmp_path / "sandbox.sock"
    program = ["-m", "tunesmith_evaluation.metrics.sandbox", str(path), str(tmp_path)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-c", RUNTIME, str(error), *program], env=environment) as process:
        try:
            with pytest.raises(InfrastructureError, match=f"and was not: this node .*{advice}") as raised:
                require_sandbox(SocketCodeRunner(path, sleep=lambda seconds: time.sleep(0.1)))
        finally:
            process.terminate()
    assert raised.value.reason == "SandboxUnavailable"


def test_beside_a_sandbox_no_code_runs_in_the_own_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "START_SECONDS", 0)
    with pytest.raises(InfrastructureError, match="the sandbox did not start"):
        open_code_runner(tmp_path / "sandbox.sock")
    assert isinstance(open_code_runner(tmp_path / "elsewhere" / "sandbox.sock"), LocalCodeRunner)


def test_a_sandbox_that_is_up_is_used(server: Path) -> None:
    assert isinstance(open_code_runner(server), SocketCodeRunner)


def test_a_sandbox_that_is_away_is_no_wrong_answer(tmp_path: Path) -> None:
    scorer = CodeTests(SocketCodeRunner(tmp_path / "none.sock"))
    with pytest.raises(InfrastructureError, match="no sandbox at") as error:
        scorer.score(Question(""), Expected(tests="pass"), Answer("pass"))
    assert error.value.reason == "SandboxUnavailable"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nand then\n```python\nx = 2\n```", "x = 1\n"),
        ("```bash\npip install y\n```\n```py\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
    ],
)
def test_code_in_an_answer(text: str, code: str) -> None:
    assert find_code(text) == code


def test_code_tests_score_answers(runner: LocalCodeRunner) -> None:
    scorer = CodeTests(runner)
    expected = Expected(tests="assert add(1, 2) == 3", row=1)
    assert scorer.score(Question(""), expected, Answer(f"Sure:\n```python\n{ADD}```")).value == 1
    wrong = scorer.score(Question(""), expected, Answer("def add(a, b): return 4"))
    assert (wrong.value, wrong.detail) == (0, {"failed": "AssertionError: "})
    assert "row 1 has no tests" in (scorer.check(Expected(row=1)) or "")


def test_an_answer_is_right_by_what_its_item_has(runner: LocalCodeRunner) -> None:
    scorer = RightAnswer(by_tests=CodeTests(runner))
    tested = Expected("any", tests="assert add(1, 2) == 3")
    assert scorer.score(Question(""), tested, Answer(ADD)).value == 1
    assert scorer.score(Question(""), Expected("four"), Answer("four")).value == 1
    call = Call("f", {})
    assert scorer.score(Question(""), Expected(tool_calls=(call,)), Answer("", tool_calls=(call,))).value == 1
    assert "without a sandbox" in (RightAnswer().check(tested) or "")
