"""Devices of evaluated models: copies on GPUs, a model spread over them, models loaded one after the other."""

import multiprocessing
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from stages.stage_world import RowBuilders, World
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.integrations.accelerate import get_balanced_memory, infer_auto_device_map

from tunesmith_contract.evaluation import Decoding
from tunesmith_contract.shared_rules.answer_memory import (
    GIB,
    AnswerMemory,
    answer_memory,
    count_rows,
)
from tunesmith_contract.shared_rules.gpus import usable_memory
from tunesmith_data.failures import InfrastructureError, StageError
from tunesmith_data.models.torch_shape import build_skeleton, count_parameters, describe_shape
from tunesmith_evaluation.models import placement, transformers_answerer
from tunesmith_evaluation.models import side_models as models_module
from tunesmith_evaluation.models.generation import EncodedPrompt
from tunesmith_evaluation.models.likelihood import EncodedAnswer
from tunesmith_evaluation.models.model_processes import ModelProcesses, share
from tunesmith_evaluation.models.placement import Placement, choose_placements, measure_model
from tunesmith_evaluation.models.side_models import (
    GenerationTask,
    LikelihoodTask,
    SideModels,
    add_adapters,
    load_model,
)
from tunesmith_evaluation.models.sides import ModelGroup

#: About Llama 3.1 8B and 70B.
SMALL = AnswerMemory(15 * GIB, 1 * GIB, 131_072, 250_000, 1_300_000)
LARGE = AnswerMemory(132 * GIB, 2 * GIB, 327_680, 600_000, 1_300_000)

FORKING = multiprocessing.get_context("fork")


@pytest.mark.parametrize(
    ("memory", "sizes", "expected"),
    [
        (SMALL, [], [()]),
        (SMALL, [22.5], [(0,)]),
        (SMALL, [80] * 8, [(gpu,) for gpu in range(8)]),
        (SMALL, [22.5] * 8, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (SMALL, [15, 15], [(0, 1)]),
        (SMALL, [15, 80, 15], [(0, 1, 2)]),
        (LARGE, [80] * 5, [(0, 1, 2, 3, 4)]),
        (LARGE, [80] * 16, [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)]),
        (LARGE, [178], [(0,)]),
    ],
)
def test_gpus_hold_the_copies_that_are_fastest_together(
    memory: AnswerMemory, sizes: list[float], expected: list[tuple[int, ...]]
) -> None:
    chosen = choose_placements(memory, 2048, [int(size * GIB) for size in sizes])
    assert [placement.gpus for placement in chosen] == expected


def test_a_long_item_takes_the_memory_of_a_copy() -> None:
    assert len(choose_placements(SMALL, 2048, [40 * GIB] * 2)) == 2
    assert len(choose_placements(SMALL, 65_536, [40 * GIB] * 2)) == 1


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_model_larger_than_all_gpus_is_refused_with_numbers(gpus: int) -> None:
    with pytest.raises(StageError, match=r"takes 132\.0 GiB.*2,048 tokens.*raise compute\.gpus") as caught:
        choose_placements(LARGE, 2048, [int(70 * GIB)] * gpus)
    room = gpus * usable_memory(70 * GIB) / GIB
    assert f"but the pod's GPUs ({gpus}) have {room:.1f} GiB" in caught.value.message
    assert caught.value.reason == "OutOfMemory"


def test_weights_are_loaded_straight_onto_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda gpu: (gpu + 1) * 1000)
    assert Placement().loading_arguments() == {}
    assert Placement((3,)).loading_arguments() == {"device_map": {"": 3}}
    spread = {"device_map": "balanced", "max_memory": {0: 940, 1: 1880}}
    assert Placement((0, 1)).loading_arguments() == spread
    assert (Placement().dtype, Placement((0,)).dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_a_model_that_is_spread_over_the_smallest_possible_gpus_stays_on_them(gpus: int) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 128_256,
        "num_hidden_layers": 32,
    }
    config = LlamaConfig(num_attention_heads=32, num_key_value_heads=8, architectures=["Llama"], **sizes)
    skeleton = build_skeleton(config)
    memory = answer_memory(count_parameters(skeleton), describe_shape(skeleton))
    smallest = next(
        size for size in range(GIB, 40 * GIB, GIB // 4) if count_rows(memory, 2048, [size] * gpus)
    )
    free = int(placement.SPREAD_SHARE * (smallest - 0.6 * GIB))
    blocks = skeleton._no_split_modules
    for first in (0, 8):
        ours = range(first, first + gpus)
        balanced = get_balanced_memory(skeleton, dict.fromkeys(ours, free), blocks)
        devices = infer_auto_device_map(skeleton, balanced, blocks)
        assert set(devices.values()) <= set(ours)


def test_a_model_partly_outside_the_gpus_is_refused(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    parameters = [SimpleNamespace(device=torch.device(name)) for name in ("cuda:0", "cuda:1", "meta")]
    loaded = SimpleNamespace(parameters=lambda: parameters)
    found: dict[str, list[str]] = {"missing_keys": [], "mismatched_keys": []}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: (loaded, found))
    monkeypatch.setattr(placement, "free_memory", lambda _: GIB)
    with pytest.raises(StageError, match="does not fit on 2 GPUs"):
        load_model(models / "llama", Placement((0, 1)), "the model of a")
    del parameters[2]
    assert load_model(models / "llama", Placement((0, 1)), "the model of a") is loaded


@pytest.fixture
def save_adapter(models: Path, tmp_path: Path) -> Callable[[str, float], Path]:
    """Function that saves a LoRA in float32 whose effect grows with a scale."""

    def save(name: str, scale: float) -> Path:
        causal: Any = AutoModelForCausalLM
        model = get_peft_model(
            causal.from_pretrained(models / "llama", dtype=torch.float32),
            LoraConfig(r=4, target_modules="all-linear"),
        )
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=scale)
        model.save_pretrained(str(tmp_path / name))
        return tmp_path / name

    return save


def test_adapters_have_the_data_type_of_their_base_model(
    models: Path, save_adapter: Callable[[str, float], Path]
) -> None:
    causal: Any = AutoModelForCausalLM
    base = causal.from_pretrained(models / "llama", dtype=torch.bfloat16)
    folders = {"one": save_adapter("one", 0.1), "two": save_adapter("two", 0.2)}
    model = add_adapters(base, folders)
    weights = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert {name.rsplit(".", 2)[1] for name in weights} == {"one", "two"}
    assert all(weight.abs().sum() > 0 for weight in weights.values())


@pytest.fixture
def group(models: Path, save_adapter: Callable[[str, float], Path]) -> ModelGroup:
    """A base model with two adapters."""
    adapters = {"one": save_adapter("one", 0.1), "two": save_adapter("two", 0.2)}
    return ModelGroup(models / "llama", "r1", ("bare", "one", "two"), adapters, {})


def generate(models: SideModels | ModelProcesses, side: str, prompts: list[list[int]], count: int) -> Any:
    """Texts of the answers of each batch."""
    task = GenerationTask(side, [EncodedPrompt(ids) for ids in prompts], Decoding(max_new_tokens=count))
    batches: list[Any] = list(models.run(task))
    return [{index: answer.text for index, answer in batch.items()} for batch in batches]


def test_adapters_share_their_base_which_leaves_the_memory(
    group: ModelGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def load(folder: Path, placement: Placement, name: str) -> Any:
        model = load_model(folder, placement, name)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(models_module, "load_model", load)
    models = SideModels(group, measure_model(group.folder), Placement())
    prompts = [[5, 6, 7], [8, 9]]
    answers = {}
    for side in ("bare", "one", "two", "bare"):
        for _ in range(2):
            (answers[side],) = generate(models, side, prompts, 8)
    assert len(loaded) == 1
    assert len({str(answer) for answer in answers.values()}) == 3
    models.unload()
    assert loaded[0]() is None


def test_a_whole_model_is_loaded_once_for_all_suites_and_without_its_base(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make.rows(40)
    train, test = world.write_rows("train.jsonl", rows[:32]), world.write_rows("test.jsonl", rows[32:])
    prepared = world.prepare(world.prepare_config(train))
    learned = {"learningRate": 5e-3, "maxSteps": 2}
    trained = world.train(world.train_config(prepared, adapter=None, hyperparameters=learned))
    artifact = trained.training.artifact
    whole = {"adapter": {"uri": artifact.uri, "digest": artifact.digest}}
    loaded = []
    models: list[Any] = []

    def load(folder: Path, placement: Placement, name: str) -> Any:
        assert all(earlier() is None for earlier in models), "an earlier model is still in memory"
        loaded.append(folder.name)
        model = load_model(folder, placement, name)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(models_module, "load_model", load)
    suite = {"dataset": test, "metrics": ["ExactMatch"], "maxNewTokens": 2}
    config = world.evaluate_config(
        sides=[{"name": "a", **whole}, {"name": "b"}, {"name": "c", "systemPrompt": "Sort.", **whole}],
        suites=[{"name": "first", **suite}, {"name": "second", "limit": 3, **suite}],
    )
    report = world.evaluate(config)
    assert report.evaluation.sides == ("a", "b", "c")
    assert len(loaded) == 2
    assert loaded[1] == "llama"


def test_prompts_are_shared_out_in_equal_parts() -> None:
    prompts = list(range(1, 2101))
    parts = share(prompts, 8)
    assert sorted(index for part in parts for index in part) == list(range(2100))
    assert len(parts) == 16
    assert {len(part) for part in parts} == {132, 120}
    assert [len(part) for part in share(prompts[:3], 2)] == [2, 1]
    assert share([], 2) == []


def test_processes_answer_as_one_does_and_report_failures(
    group: ModelGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = measure_model(group.folder)
    prompts = [[5 + length] * length for length in range(1, 12)]
    (alone,) = generate(SideModels(group, memory, Placement()), "one", prompts, 4)
    with monkeypatch.context() as patch:
        # Without a GPU they may be forked: torch takes each new one ten seconds.
        patch.setattr(multiprocessing, "get_context", lambda _: FORKING)
        with ModelProcesses(group, memory, [Placement(), Placement()]) as processes:
            batches = generate(processes, "one", prompts, 4)
            assert sorted(map(len, batches)) == [5, 6]
            assert batches[0] | batches[1] == alone
            measured = LikelihoodTask("two", [EncodedAnswer(ids, 1) for ids in prompts[1:4]])
            assert sorted(index for batch in processes.run(measured) for index in batch) == [0, 1, 2]
            members = list(processes._processes.values())
            for process in members:
                process.kill()
            with pytest.raises(InfrastructureError, match="ended with -9"):
                generate(processes, "bare", prompts, 2)
    assert not any(process.is_alive() for process in members)
    absent = replace(group, folder=tmp_path / "absent")
    with (
        ModelProcesses(absent, memory, [Placement()]) as processes,
        pytest.raises(StageError, match="absent"),
    ):
        generate(processes, "bare", prompts[:1], 4)


def test_no_process_is_started_without_work(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Processes(SideModels):
        """Models in this process, in place of several."""

        def __init__(self, group: ModelGroup, memory: AnswerMemory, placements: Any) -> None:
            super().__init__(group, memory, Placement())
            started.append([placement.gpus for placement in placements])

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            """End nothing."""

    monkeypatch.setattr(transformers_answerer, "gpu_sizes", lambda count: [80 * GIB] * count)
    monkeypatch.setattr(transformers_answerer, "ModelProcesses", Processes)
    config = world.evaluate_config(
        gpus=8,
        sides=[{"name": "a"}, {"name": "b", "systemPrompt": "Sort."}],
        suites=[
            {
                "name": "task",
                "dataset": world.write_rows("test.jsonl", make.rows(3)),
                "metrics": ["ExactMatch"],
                "maxNewTokens": 2,
            }
        ],
    )
    assert world.evaluate(config).evaluation.results[0].items == 3
    assert started == [[(0,), (1,), (2,)]]
