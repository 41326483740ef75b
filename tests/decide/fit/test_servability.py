"""What the serving engine can't serve is said before it is trained, with the field and the way out."""

from typing import Any

import pytest
from training_memory.published_memory import LLAMA_3_1_8B
from training_memory.training_runs import make_run

from tunesmith.decide.fit.generated.engine_architectures import WITH_ADAPTERS, WITHOUT_ADAPTERS
from tunesmith.decide.fit.servability import judge_servability


def test_an_ordinary_adapter_is_servable() -> None:
    for kind in ("LoRA", "RSLoRA", "QLoRA"):
        assert judge_servability(LLAMA_3_1_8B, make_run(adapter={"type": kind})).servable


@pytest.mark.parametrize(
    ("run", "model", "words"),
    [
        ({"method": {"reward": {}}}, {}, ["reward model"]),
        ({"adapter": None}, {}, ["complete model", "adapter: {}"]),
        ({"adapter": {"type": "DoRA"}}, {}, ["adapter.type", "LoRA", "Merged"]),
        ({"adapter": {"rank": 513}}, {}, ["adapter.rank", "512", "Merged"]),
        (
            {"adapter": {"targetModules": ["q_proj", "embed_tokens"]}},
            {},
            ["targetModules", "embed_tokens", "leave"],
        ),
        ({}, {"architecture": "GPT2LMHeadModel"}, ["GPT2LMHeadModel", "Merged"]),
        ({}, {"quantization": "gptq"}, ["gptq", "QLoRA"]),
        ({}, {"template_changed": True}, ["chat template", "Merged"]),
    ],
)
def test_what_can_not_be_served(run: dict[str, Any], model: dict[str, Any], words: list[str]) -> None:
    verdict = judge_servability(LLAMA_3_1_8B.model_copy(update=model), make_run(**run))
    assert verdict.servable is False
    assert all(word in verdict.message for word in words)
    assert verdict.message.endswith(".")


def test_a_merged_model_is_pointed_to_where_there_is_one() -> None:
    run = make_run(adapter={"type": "DoRA"}, formats=["Adapter", "Merged"])
    assert "merged model can be served" in judge_servability(LLAMA_3_1_8B, run).message


def test_nobody_knows_of_an_architecture_that_the_engine_does_not_list() -> None:
    model = LLAMA_3_1_8B.model_copy(update={"architecture": "BrandNewForCausalLM"})
    assert judge_servability(model, make_run()).servable is None


def test_the_lists_do_not_meet() -> None:
    assert not WITH_ADAPTERS & WITHOUT_ADAPTERS
    assert "LlamaForCausalLM" in WITH_ADAPTERS


@pytest.mark.parametrize(
    ("targets", "servable"),
    [
        (["all-linear"], True),
        (["q_proj"], True),
        (["model.layers.0.self_attn.q_proj"], True),
        (["lm_head"], False),
        (["q_proj", "embed_tokens"], False),
        (["q_prox"], False),
    ],
)
def test_target_modules(targets: list[str], servable: bool) -> None:
    assert judge_servability(LLAMA_3_1_8B, make_run(adapter={"targetModules": targets})).servable is servable


@pytest.mark.parametrize(("rank", "servable"), [(1, True), (512, True), (513, False)])
def test_ranks(rank: int, servable: bool) -> None:
    assert judge_servability(LLAMA_3_1_8B, make_run(adapter={"rank": rank})).servable is servable


def test_any_target_may_be_linear_in_a_model_of_unknown_shape() -> None:
    unknown = LLAMA_3_1_8B.model_copy(update={"shape": None})
    assert judge_servability(unknown, make_run(adapter={"targetModules": ["q_prox"]})).servable


@pytest.mark.parametrize(
    ("adapter", "model", "cause"),
    [
        ({"type": "DoRA", "rank": 600}, {}, "adapter.type"),
        ({"rank": 600, "targetModules": ["lm_head"]}, {}, "adapter.rank"),
        ({"targetModules": ["lm_head"]}, {"architecture": "GPT2LMHeadModel"}, "adapter.targetModules"),
        ({}, {"architecture": "GPT2LMHeadModel", "quantization": "gptq"}, "GPT2LMHeadModel"),
        ({}, {"quantization": "gptq", "template_changed": True}, "quantized"),
    ],
)
def test_the_first_of_several_causes_is_named(
    adapter: dict[str, Any], model: dict[str, Any], cause: str
) -> None:
    verdict = judge_servability(LLAMA_3_1_8B.model_copy(update=model), make_run(adapter=adapter))
    assert verdict.servable is False
    assert cause in verdict.message
