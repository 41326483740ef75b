"""Model inspection: the reported sizes are those of the model."""

from pathlib import Path

import pytest
import torch
from models.small_configs import ARCHITECTURES, make_config
from models.tiny_models import make_tokenizer
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tunesmith_contract.report import MAX_LINEARS, Linear
from tunesmith_data.models.inspection import describe_model
from tunesmith_data.models.torch_shape import build_skeleton, count_parameters, describe_shape
from tunesmith_data.models.training_template import is_template_changed
from tunesmith_data.pod.storage import Storage

# PEFT's own rank pattern for fused experts is one of which it warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The following rank_pattern:RuntimeWarning", "ignore:The following alpha_pattern:RuntimeWarning"
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_real_model(architecture: str) -> None:
    config = make_config(architecture)
    skeleton = build_skeleton(config)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert count_parameters(skeleton) == count_parameters(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_on_all_linear_layers_has_the_size_that_the_shape_says(architecture: str) -> None:
    shape = describe_shape(build_skeleton(make_config(architecture)))
    adapted = build_skeleton(make_config(architecture))
    adapted = get_peft_model(adapted, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    assert trained == 8 * sum(
        (each.inputs + each.outputs) * each.layers for each in shape.linears + shape.experts
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes(architecture: str) -> None:
    shape = describe_shape(build_skeleton(make_config(architecture)))
    assert (shape.hidden_size, shape.layers, shape.attention_heads, shape.vocabulary_size) == (64, 2, 4, 512)
    assert shape.head_size == ARCHITECTURES[architecture].get("head_dim", 16)
    assert shape.key_value_heads == (4 if architecture == "GPT2" else 2)
    assert shape.tied_embeddings == (architecture in {"Qwen2", "Gemma", "Gemma2", "GPT2"})


def test_a_token_passes_through_its_experts_alone() -> None:
    assert describe_shape(build_skeleton(make_config("Qwen3Moe"))).intermediate_size == 2 * 32
    assert describe_shape(build_skeleton(make_config("Llama"))).intermediate_size == 160


def test_linears_go_by_name_and_shape() -> None:
    linears = describe_shape(build_skeleton(make_config("GPT2"))).linears
    assert set(linears) == {
        Linear("c_attn", 64, 192, 2),
        Linear("c_proj", 64, 64, 2),
        Linear("c_fc", 64, 256, 2),
        Linear("c_proj", 256, 64, 2),
    }


def test_more_shapes_than_a_report_holds_are_taken_together() -> None:
    model = build_skeleton(make_config("Llama", num_hidden_layers=30))
    for width, layer in enumerate(model.model.layers, start=1):
        layer.mlp.up_proj = torch.nn.Linear(64, 100 * width, bias=False, device="meta")
    linears = describe_shape(model).linears
    assert len(linears) <= MAX_LINEARS
    up = next(each for each in linears if each.name == "up_proj")
    assert up == Linear("up_proj", 64, 1550, 30)


def test_a_described_model(tmp_path: Path) -> None:
    folder = tmp_path / "pvc/models/gptq"
    config = make_config("Llama", quantization_config={"quant_method": "gptq", "bits": 4})
    AutoModelForCausalLM.from_config(make_config("Llama")).save_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    make_tokenizer(["a"]).save_pretrained(folder)
    report = describe_model(Storage(tmp_path), "pvc://models/gptq", folder)
    assert report.quantization == "gptq"
    assert report.shape is not None and report.shape.linears


def test_a_template_counts_as_changed_when_it_asks_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    own = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer = make_tokenizer(["a"], own)
    for replacement, changed in ((None, False), (own + "{# marks #}", False), (own + "!", True)):
        monkeypatch.setattr(
            "trl.chat_template_utils.get_training_chat_template", lambda _, it=replacement: it
        )
        assert is_template_changed(tokenizer) is changed
