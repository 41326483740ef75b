"""End of the train stage: measurement beside offloaded layers, failures and preemption after the last step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, PeftModel, get_peft_model
from stages.gangs import Pod, end_gang, start_gang
from stages.progress_pause import paused_progress
from stages.stage_world import RowBuilders, World
from transformers import AutoModelForCausalLM

from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.progress import SERVER_URL_ENV, TrainPart
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.failures import StageError, classify
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.storage import describe_files
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train import stage
from tunesmith_trainer.train.artifact import reference_model
from tunesmith_trainer.train.artifact.probe_noise import measure_adapter
from tunesmith_trainer.train.artifact.probes import ProbeTokens, token_log_probs
from tunesmith_trainer.train.artifact.reference_model import load_adapter, measure_stored_model
from tunesmith_trainer.train.exports import merged
from tunesmith_trainer.train.training_run import cast_parameters

SEQUENCES = (ProbeTokens(tuple(range(5, 45)), 30), ProbeTokens(tuple(range(60, 75)), 3))
SECONDS = 300
GIB = 2**30


def load(folder: Path, **more: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)


def save_random_adapter(base: Path, folder: Path, **more: Any) -> Path:
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(load(base), settings)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(str(folder))
    return folder


def offload_to_host(base: Path, folder: Path) -> Any:
    return cpu_offload(load(base), execution_device="cpu")


def offload_to_disk(base: Path, folder: Path) -> Any:
    placement = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.norm": "cpu",
        "lm_head": "cpu",
    }
    return load(base, device_map=placement | {"model.layers": "disk"}, offload_folder=folder / "offloaded")


@pytest.mark.parametrize("offload", [offload_to_host, offload_to_disk])
@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_an_adapter_has_its_effect_on_offloaded_layers(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offload: Any, rank_stabilized: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    base = models / "llama"
    adapter = save_random_adapter(base, tmp_path / "adapter", use_rslora=rank_stabilized)
    files = describe_files(base)
    expected = measure_adapter(PeftModel.from_pretrained(load(base), adapter), SEQUENCES)
    found = measure_adapter(load_adapter(offload(base, tmp_path), adapter), SEQUENCES)
    assert found.base != found.tuned
    for left, right in zip(found.base + found.tuned, expected.base + expected.tuned, strict=True):
        assert left == pytest.approx(right, abs=1e-5)
    assert describe_files(base) == files, "PEFT writes over weights that it finds on a disk"


def test_an_adapter_that_needs_offloaded_weights_asks_for_more_memory(models: Path, tmp_path: Path) -> None:
    base = models / "llama"
    adapter = save_random_adapter(base, tmp_path / "adapter", use_dora=True)
    with pytest.raises(StageError, match="ask for more GPUs") as caught:
        load_adapter(offload_to_host(base, tmp_path), adapter)
    assert caught.value.category is FailureCategory.OUT_OF_MEMORY


def test_sequences_of_a_batch_do_not_change_each_other(models: Path) -> None:
    model = load(models / "llama")
    alone, together = (token_log_probs(model, SEQUENCES, size) for size in (1, 2))
    assert [len(values) for values in alone] == [10, 12]
    for left, right in zip(alone, together, strict=True):
        assert left == pytest.approx(right, abs=1e-5)


def test_the_stored_type_leaves_buffers_alone(models: Path) -> None:
    model = load(models / "llama")
    cast_parameters(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    expected = token_log_probs(
        AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.bfloat16), SEQUENCES
    )
    assert token_log_probs(model, SEQUENCES) == expected


def test_weights_go_where_memory_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((10 + device) * GIB, 80 * GIB))
    monkeypatch.setattr(reference_model, "free_host_memory", lambda: 100 * GIB)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda folder, **options: asked.append(options)
    )
    with reference_model.serving_model(tmp_path, 0.5):
        assert asked[0]["max_memory"] == {0: 5 * GIB, 1: 5.5 * GIB, "cpu": 85 * GIB}
        assert asked[0]["device_map"] == "auto"
        assert asked[0]["dtype"] is torch.bfloat16


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_gpu_memory_that_runs_out_is_left_to_fewer_weights(
    models: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    base = models / "llama"
    fractions: list[float] = []

    @contextmanager
    def model(folder: Path, gpu_fraction: float) -> Iterator[Any]:
        fractions.append(gpu_fraction)
        if len(fractions) <= failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield load(folder)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(reference_model, "serving_model", model)
    if failures == 3:
        with pytest.raises(torch.OutOfMemoryError):
            measure_stored_model(base, base, SEQUENCES)
        assert fractions == [0.85, 0.5, 0.0]
    else:
        measured = measure_stored_model(base, base, SEQUENCES)
        assert measured.base == measured.tuned
        assert fractions == [*[0.85, 0.5, 0.0][: failures + 1], 0.85]


def test_a_merge_that_does_not_fit_says_so(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_random_adapter(models / "llama", tmp_path / "adapter")
    monkeypatch.setattr(merged, "free_host_memory", lambda: 1000)
    with pytest.raises(StageError, match=r"raise resources\.limits\.memory") as caught:
        merged.save_merged(models / "llama", adapter, load_tokenizer(models / "llama"), tmp_path / "merged")
    assert caught.value.category is FailureCategory.OUT_OF_MEMORY
    assert not (tmp_path / "merged").exists()


def train_config(world: World, make: RowBuilders, **more: Any) -> TrainConfig:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(24))))
    numbers = {"maxSteps": 4, "microBatchSize": 2, "learningRate": 1e-3}
    return world.train_config(prepared, hyperparameters=numbers, **more)


@pytest.mark.parametrize(
    ("more", "broken"),
    [
        ({"adapter": {"rank": 4, "type": "QLoRA"}}, "finish.measure_stored_adapter"),
        ({"adapter": None}, "finish.measure_stored_model"),
        ({"formats": ["Adapter", "Merged"]}, "exports.build.save_merged"),
    ],
    ids=["QLoRA", "full", "merged"],
)
def test_memory_that_runs_out_after_training_costs_no_training(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch, more: Any, broken: str
) -> None:
    config = train_config(world, make, **more)

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(f"tunesmith_trainer.train.{broken}", run_out)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            world.train(config)
    assert classify(caught.value) == (FailureCategory.OUT_OF_MEMORY, "OutOfMemory")

    monkeypatch.setattr(stage, "run_training", None)
    workspace = Workspace(world.storage, config)
    report = stage.train(config, world.storage, workspace, Preemption())
    assert report
    assert report.training
    assert report.training.steps == 4
    assert report.training.curve
    assert len(report.training.exports) == len(config.formats) - 1
    assert workspace.committed_report() == report
    workspace.prune()
    assert not workspace.trained.exists()


def test_sigterm_after_training_is_continued_without_training(world: World, make: RowBuilders) -> None:
    config = train_config(world, make, adapter=None)
    pods: list[Pod] = []
    working: list[int] = []

    def preempt() -> None:
        working.extend(pods[0].workers())
        pods[0].process.send_signal(signal.SIGTERM)

    with paused_progress(TrainPart.MEASURING, preempt) as url:
        environment: dict[str, Any] = {SERVER_URL_ENV: url}
        pods += start_gang(world.root, config, workers=2, **environment)
        assert end_gang(pods, SECONDS) == [ExitCode.PREEMPTED], pods[0].output
    assert len(working) == 1, "the other worker has left"
    assert "'loss'" in pods[0].output
    assert pods[0].report.checkpoint

    pods = start_gang(world.root, config, workers=2)
    assert end_gang(pods, SECONDS) == [0], pods[0].output
    assert "'loss'" not in pods[0].output
    assert pods[0].report.training
    assert pods[0].report.training.steps == 4
