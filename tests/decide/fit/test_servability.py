"""What the serving engine can't serve is said before it is trained, with the field and the way out."""

from typing import Any

import pytest
from published_memory import LLAMA_3_1_8B
from training_runs import make_run

from tunesmith.decide.fit.engine_architectures import WITH_ADAPTERS, WITHOUT_ADAPTERS
from tunesmith.decide.fit.servability import judge_servability


def test_an_ordinary_adapter_is_servable() -> None:
    for kind in ("LoRA", "RSLoRA", "QLoRA"):
        assert judge_servability(LLAMA_3_1_8B, make_run(adapter={"type": kind})).servable


@pytest.mark.parametrize(
    ("run", "model", "words"),
    [
        ({"method": {"reward": {}}}, {}, ["reward model"]),
        ({"adapter": None}, {}, ["whole model", "adapter: {}"]),
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
