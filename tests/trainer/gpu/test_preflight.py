"""Check of GPUs before a stage begins, in pods on a machine without any GPU and with pretended ones."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from stages.stage_world import World
from training_memory.training_runs import make_run
from transformers import LlamaConfig

from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.report import GPUReason, RunReport, parse_report
from tunesmith_contract.run_config import AnyConfig, EvaluateConfig, TrainConfig
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.storage import Storage
from tunesmith_gpu.facts import DeviceFacts, GPUFacts
from tunesmith_gpu.probe import _multiply, find_library, gather_facts, read_driver_version
from tunesmith_trainer import worker
from tunesmith_trainer.gpu import preflight
from tunesmith_trainer.gpu.device import uses_gpu, worker_device
from tunesmith_trainer.gpu.preflight import check_gpus
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.distributed.parallel import any_worker, deepspeed_settings
from tunesmith_trainer.train.distributed.rendezvous import start_single_process_group
from tunesmith_trainer.train.kernels import detect_hardware
from tunesmith_trainer.train.models import weights_dtype

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def files_of(root: Path) -> set[Path]:
    return {path for path in (root / "pvc").rglob("*") if path.is_file()}


def evaluate_config(world: World, gpus: int) -> EvaluateConfig:
    """An evaluation whose data do not exist."""
    suite = {"name": "quiz", "dataset": "pvc://data/missing.jsonl", "metrics": ["ExactMatch"]}
    return world.evaluate_config(sides=[{"name": "base"}, {"name": "other"}], suites=[suite], gpus=gpus)


def require_no_gpu(report: RunReport | None, requested: int) -> None:
    """Check the report of a pod that asked for GPUs on this machine."""
    assert report is not None
    assert report.training is None
    assert report.evaluation is None
    failure = report.failure
    assert failure is not None
    assert (failure.category, failure.reason) == (FailureCategory.INFRASTRUCTURE, GPUReason.NO_GPU)
    assert f"asks for {requested} GPU" in failure.message
    assert "and torch can use 0" in failure.message
    assert "Torch says: Found no NVIDIA driver on your system." in failure.message


def run_pod(root: Path, config: AnyConfig) -> tuple[int, RunReport | None]:
    """Run a stage as a pod does, in new processes: CUDA can't be started in forked ones."""
    file, log = root / "run.json", root / "log"
    file.write_text(config.to_json())
    options = {"--config": file, "--mount-root": root, "--termination-log": log}
    arguments = [str(word) for option in options.items() for word in option]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tunesmith_trainer", config.stage, *arguments]
    ended = subprocess.run(command, env=environment, timeout=120, check=False)
    return ended.returncode, parse_report(log.read_bytes())


@without_gpu
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_training_without_its_gpus_ends_before_anything_is_read(tmp_path: Path, workers: int) -> None:
    (tmp_path / "pvc/o").mkdir(parents=True)
    # Neither the base model nor the data of this run exist: reading them would be another failure.
    code, report = run_pod(tmp_path, make_run(gpusPerNode=workers))
    assert code == ExitCode.INFRASTRUCTURE
    require_no_gpu(report, workers)
    assert files_of(tmp_path) == set()


@without_gpu
def test_an_evaluation_without_its_gpus_ends_before_anything_is_read(world: World) -> None:
    before = files_of(world.root)
    code, report = run_pod(world.root, evaluate_config(world, gpus=2))
    assert code == ExitCode.INFRASTRUCTURE
    require_no_gpu(report, 2)
    assert files_of(world.root) == before


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch says that it sees a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("pretended_gpu")
def test_arguments_and_weights_follow_the_run_and_not_the_machine(world: World) -> None:
    rows = SimpleNamespace(train=[{}] * 8, validation=[])
    model = SimpleNamespace(config=LlamaConfig())
    for config, on_gpu in ((make_run(gpusPerNode=0), False), (make_run(), True)):
        training: Any = SimpleNamespace(
            config=config,
            model=model,
            rows=rows,
            output_dir=world.root,
            logs=world.root,
            reports_steps=True,
        )
        arguments = common_arguments(training)
        chosen = [arguments[name] for name in ("bf16", "use_cpu", "dataloader_pin_memory")]
        assert chosen == [on_gpu, not on_gpu, on_gpu]
        dtype = weights_dtype(config, on_gpu=uses_gpu(config))
        assert dtype is (torch.bfloat16 if on_gpu else torch.float32)


@pytest.mark.usefixtures("pretended_gpu")
def test_kernels_and_process_group_follow_the_run_and_not_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # the process group leaves them behind
        monkeypatch.delenv(name)
    config = make_run(gpusPerNode=0, parallelism="ZeRO2")
    settings = deepspeed_settings(config)
    assert settings is not None
    assert settings["bf16"] == {"enabled": False}
    assert detect_hardware(on_gpu=uses_gpu(config)).capability is None
    start_single_process_group(on_gpu=uses_gpu(config))
    try:
        assert dist.get_backend() == "gloo"
        assert any_worker(True)
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("gpus", [0, 1])
def test_unrequested_gpus_are_hidden_and_requested_ones_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    checked: list[AnyConfig] = []
    visible: list[str] = []
    monkeypatch.setattr(preflight, "check_gpus", lambda config, environment: checked.append(config))
    monkeypatch.setattr(
        worker, "_dispatch", lambda *arguments: visible.append(os.environ["CUDA_VISIBLE_DEVICES"])
    )
    config = make_run(gpusPerNode=gpus)
    worker.run_stage(config, Storage(tmp_path))
    assert visible == ["0" if gpus else ""]
    assert checked == ([config] if gpus else [])


def facts_of(devices: Iterable[int], usable: int = 8) -> GPUFacts:
    """Facts about a machine with many H100s."""
    found = tuple(DeviceFacts(index, "NVIDIA H100", (9, 0)) for index in devices)
    return GPUFacts(torch="2.13.0+cu130", cuda="13.0", usable=usable, devices=found, driver="580.95.05")


@pytest.mark.parametrize(
    ("environment", "checked"),
    [
        ({}, [0, 1]),
        ({"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}, [0, 1]),
        ({"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}, [1]),
    ],
)
def test_several_workers_check_one_gpu_each_and_a_single_one_all(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], checked: list[int]
) -> None:
    asked: list[int] = []

    def gather(devices: Iterable[int]) -> GPUFacts:
        asked.extend(devices)
        return facts_of(asked)

    monkeypatch.setattr(preflight, "gather_facts", gather)
    check_gpus(make_run(gpusPerNode=2), environment)
    assert asked == checked


def test_each_worker_of_a_pod_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "gather_facts", lambda devices: facts_of(devices, usable=2))
    environment = {"LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    with pytest.raises(InfrastructureError, match="asks for 4 GPUs, and torch can use 2") as caught:
        check_gpus(make_run(gpusPerNode=2), environment)
    assert caught.value.reason == GPUReason.NO_GPU


def test_more_gpus_than_asked_for_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preflight, "gather_facts", facts_of)
    with caplog.at_level("INFO"):
        check_gpus(make_run(gpusPerNode=1), {})
    assert "asks for 1 GPUs, and 8 can be used" in caplog.text


def test_torch_is_asked_for_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        warnings.warn("the GPU is not compatible with this torch", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "init", start)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU of number {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr("tunesmith_gpu.probe._multiply", lambda device: f"fails on {device}")
    facts = gather_facts([1, 2])
    assert facts.usable == 2
    assert facts.devices == (DeviceFacts(1, "GPU of number 1", (9, 0), "fails on cuda:1"),)
    assert facts.complaint == "the GPU is not compatible with this torch"
    assert facts.architectures == tuple(torch.cuda.get_arch_list())


@without_gpu
def test_facts_of_a_machine_without_a_gpu() -> None:
    facts = gather_facts([0])
    assert (facts.usable, facts.devices, facts.library, facts.driver_cuda) == (0, (), None, None)
    assert facts.cuda == torch.version.cuda
    assert facts.complaint.startswith("Found no NVIDIA driver")


def test_a_multiplication_is_computed_and_its_error_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _multiply(torch.device("cpu")) == ""
    ones = torch.ones

    def wrong(*size: Any, **options: Any) -> torch.Tensor:
        return ones(*size, **options) * 2

    monkeypatch.setattr(torch, "ones", wrong)
    assert "is 1.04858e+06, not 262144" in _multiply(torch.device("cpu"))

    def broken(*size: Any, **options: Any) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error")

    monkeypatch.setattr(torch, "ones", broken)
    assert _multiply(torch.device("cpu")) == "CUDA error: uncorrectable ECC error"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.274.02  Thu Jun 12 22:20:44 UTC 2025\n"
            "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
            "535.274.02",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (build@host)\n",
            "580.95.05",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  575.57.08  Release Build\n", "575.57.08"),
        ("", None),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, text: str, version: str | None) -> None:
    file = tmp_path / "version"
    assert read_driver_version(file) is None
    file.write_text(text)
    assert read_driver_version(file) == version


def test_the_library_is_found_where_the_loader_does_not_look(tmp_path: Path) -> None:
    first, second = tmp_path / "lib64", tmp_path / "nvidia"
    second.mkdir()
    assert find_library([first, second]) is None
    (second / "libcuda.so.1").touch()
    assert find_library([first, second]) == str(second / "libcuda.so.1")


def test_stages_of_data_ask_for_no_gpu(world: World) -> None:
    assert worker_device(world.prepare_config("pvc://data/rows.jsonl")) == "cpu"
    assert worker_device(evaluate_config(world, gpus=0)) == "cpu"
    assert worker_device(evaluate_config(world, gpus=2)) == "cuda"
    assert isinstance(config := make_run(), TrainConfig)
    assert worker_device(config) == "cuda"
