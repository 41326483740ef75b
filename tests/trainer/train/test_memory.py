"""Memory estimate compared with torch: bytes of real models, training steps on fake tensors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from models.small_configs import make_config
from peft import get_peft_model
from training_memory.memory_meter import SavedBytes
from training_memory.published_memory import allocated
from training_memory.training_runs import make_run
from training_memory.training_step import peft_config, report_of, simulate
from transformers import AutoModelForCausalLM

from tunesmith.decide.fit.activations import saved_bytes
from tunesmith.decide.fit.memory import (
    NORMAL_FLOAT,
    NORMAL_FLOAT_DOUBLE,
    Setup,
    TrainingStep,
    estimate_setup,
    setup_of,
)
from tunesmith_contract.run_config import Adapter, AdapterType
from tunesmith_trainer.train.packed_attention import PACKED_SDPA, register_packed_attention

WORST_ERROR = 0.10

#: Large enough that tokens, not tables, fill the memory; tensors hold no data, so it costs nothing.
SIZES = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 8192,
}
LORA = Adapter(rank=16)
DORA = Adapter(rank=16, type=AdapterType.DORA)
FEW = Adapter(rank=64, target_modules=("q_proj", "v_proj"))

# Fake tensors have no values, so transformers can't see that nothing is padded: it masks.
STEPS = {
    "all weights in float32": Setup(2, 2048, weight=4, masked=True),
    "all weights in float32, checkpointing": Setup(4, 2048, weight=4, masked=True, checkpointing=True),
    "all weights in bfloat16": Setup(2, 2048, masked=True),
    "without accumulation": Setup(2, 2048, masked=True, accumulates=False),
    "LoRA": Setup(2, 2048, adapter=LORA, masked=True),
    "LoRA, checkpointing": Setup(8, 2048, adapter=LORA, masked=True, checkpointing=True),
    "LoRA in bfloat16": Setup(2, 2048, adapter=LORA, adapter_weight=2, masked=True),
    "LoRA in bfloat16, checkpointing": Setup(
        8, 2048, adapter=LORA, adapter_weight=2, masked=True, checkpointing=True
    ),
    "LoRA on two layers": Setup(2, 2048, adapter=FEW, masked=True),
    "DoRA": Setup(2, 2048, adapter=DORA, masked=True),
    "DoRA, checkpointing": Setup(8, 2048, adapter=DORA, masked=True, checkpointing=True),
    "one long row": Setup(1, 8192, adapter=LORA, masked=True, checkpointing=True),
    "short rows": Setup(4, 128, adapter=LORA, masked=True),
}


#: A step without checkpoints of blocks in the form of one with them.
LONG = ("all weights in float32", "LoRA", "LoRA in bfloat16")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in STEPS]
)
def test_a_step_takes_what_was_estimated(name: str) -> None:
    config = make_config("Llama", **SIZES)
    setup, model = STEPS[name], report_of(config)
    step, memory = simulate(config, setup), estimate_setup(model, setup)
    assert memory.weights + memory.adapter == pytest.approx(step.weights, rel=0.001)
    assert memory.weights + memory.adapter + memory.optimizer == pytest.approx(step.state, rel=0.02)
    assert allocated(memory) == pytest.approx(step.peak, rel=WORST_ERROR)


def test_the_settings_of_a_run_are_those_of_its_step() -> None:
    """The trainer replaces no layers of a model by ones that keep less."""
    config = make_config("Llama", **SIZES)
    model = report_of(config)
    numbers = {"learningRate": 1e-4, "batchSize": 8, "microBatchSize": 2}
    run = make_run(method={"sft": {"maxLength": 2048}}, adapter={"rank": 16}, hyperparameters=numbers)
    setup = setup_of(model, run)
    assert allocated(estimate_setup(model, setup)) == pytest.approx(
        simulate(config, setup).peak, rel=WORST_ERROR
    )


@pytest.mark.parametrize("architecture", ["Qwen3", "Gemma", "Phi3"])
@pytest.mark.parametrize(
    "setup", [STEPS["all weights in bfloat16"], STEPS["LoRA, checkpointing"]], ids=["all", "LoRA"]
)
def test_other_architectures(architecture: str, setup: Setup) -> None:
    config = make_config(architecture, **SIZES)
    assert allocated(estimate_setup(report_of(config), setup)) == pytest.approx(
        simulate(config, setup).peak, rel=WORST_ERROR
    )


@pytest.mark.parametrize("attention", ["sdpa", PACKED_SDPA])
@pytest.mark.parametrize("length", [32, 128])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["all", "LoRA"])
def test_what_autograd_keeps_of_a_real_model(length: int, adapter: Adapter | None, attention: str) -> None:
    """On real tensors and in float32 throughout: norms make no copies, and one row or packed ones
    need no mask.
    """
    register_packed_attention()
    config = make_config("Llama", num_hidden_layers=4, max_position_embeddings=256)
    config._attn_implementation = attention
    setup = Setup(1, length, weight=4, adapter=adapter)
    report = report_of(config)
    assert report.shape is not None
    style = replace(TrainingStep(report, report.shape, setup).style, compute=4, casts=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = model if adapter is None else get_peft_model(model, peft_config(setup))
    base: Any = model if adapter is None else model.get_base_model()
    positions = torch.arange(length) % (length if attention == "sdpa" else 8)
    with SavedBytes(model.parameters()) as saved:
        base.model(input_ids=torch.zeros((1, length), dtype=torch.long), position_ids=positions[None])
    assert saved_bytes(report, style) * length == pytest.approx(saved.bytes, rel=WORST_ERROR)


@pytest.mark.parametrize(("double", "factor"), [(False, NORMAL_FLOAT), (True, NORMAL_FLOAT_DOUBLE)])
def test_four_bit_weights_take_what_bitsandbytes_makes_of_them(double: bool, factor: float) -> None:
    layer = Linear4bit(1024, 4096, bias=False, quant_type="nf4", compress_statistics=double)
    layer.load_state_dict({"weight": torch.randn(4096, 1024)})
    module: Any = layer
    weight = module.to("cpu").weight
    state = weight.quant_state
    held = [weight.data, state.absmax, *([state.state2.absmax] if double else [])]
    assert factor * 4096 * 1024 == pytest.approx(
        sum(tensor.numel() * tensor.element_size() for tensor in held), rel=0.01
    )
