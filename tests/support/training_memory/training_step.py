"""Training step as in the trainer on a generated model: counted on fake tensors, or measured on a GPU."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from training_memory.memory_meter import MemoryMeter, SavedBytes, fake_copy, fake_tensors
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from tunesmith.decide.fit.memory import Setup
from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import AdapterType
from tunesmith_data.models.torch_shape import build_skeleton, count_parameters, describe_shape

STEPS = 2


@dataclass(frozen=True)
class Step:
    """Bytes of a step.

    Attributes:
        weights: base model and adapter.
        state: weights and the optimizer's moments.
        saved: what autograd keeps at the end of the forward pass.
        peak: the most that was allocated.
    """

    weights: int
    state: int
    saved: int
    peak: int


def report_of(config: Any) -> ModelReport:
    """What prepare says of a model of this configuration."""
    skeleton = build_skeleton(config)
    return ModelReport(
        revision="r",
        architecture=type(skeleton).__name__,
        parameters=count_parameters(skeleton),
        max_position_embeddings=config.max_position_embeddings,
        shape=describe_shape(skeleton),
    )


def build_model(config: Any, setup: Setup) -> Any:
    """The model on the meta device, with adapter, checkpointing and fused output layer as the trainer has them."""
    config._attn_implementation = "sdpa"
    base = build_skeleton(config).to({2: torch.bfloat16, 4: torch.float32}[setup.weight])
    model = base
    if setup.adapter:
        model = get_peft_model(base, peft_config(setup), autocast_adapter_dtype=setup.adapter_weight == 4)
    if setup.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if setup.adapter:
            model.enable_input_require_grads()
    add_fused_lm_head(base)
    return model.train()


def peft_config(setup: Setup) -> LoraConfig:
    """The adapter as PEFT knows it."""
    adapter = setup.adapter
    assert adapter is not None
    names = list(adapter.target_modules)
    return LoraConfig(
        r=adapter.rank,
        lora_dropout=adapter.dropout,
        use_dora=adapter.type is AdapterType.DORA,
        target_modules=names[0] if names == ["all-linear"] else names,
        task_type="CAUSAL_LM",
    )


def simulate(config: Any, setup: Setup) -> Step:
    """A step on tensors without data, as CUDA would have it."""
    model = build_model(config, setup)
    meter = MemoryMeter()
    with fake_tensors(), _tiles_as_on_a_gpu():
        fake_copy(model)
        meter.count([*model.parameters(), *model.buffers()])
        weights = meter.bytes
        with meter:
            saved, state = _run(model, setup, "cpu", meter)
        return Step(weights, state, saved, meter.peak)


def measure(model: Any, setup: Setup) -> Step:
    """Steps on a GPU, by its allocator's own count."""
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    saved, state = _run(model, setup, "cuda", None)
    return Step(weights, state, saved, torch.cuda.max_memory_allocated())


def _run(model: Any, setup: Setup, device: str, meter: MemoryMeter | None) -> tuple[int, int]:
    """Optimizer steps; what autograd kept in the last one, and what was held between two."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    fused: dict[str, Any] = {"fused": True} if meter is None else {"foreach": False}
    optimizer = torch.optim.AdamW(parameters, **fused)
    ids = torch.zeros((setup.sequences, setup.length), dtype=torch.long, device=device)
    places = torch.arange(setup.length, device=device).expand(setup.sequences, -1).contiguous()
    saved = state = 0
    for step in range(STEPS):
        # The first step makes the optimizer's moments; the last one adds its gradients up beside them.
        for _ in range(2 if setup.accumulates and step == STEPS - 1 else 1):
            saved = _pass(model, device, {"input_ids": ids, "position_ids": places, "labels": ids})
        optimizer.step()
        optimizer.zero_grad()
        state = meter.bytes if meter else torch.cuda.memory_allocated()
    return saved, state


def _pass(model: Any, device: str, inputs: dict[str, Any]) -> int:
    inputs["fused_lm_head"] = True
    with SavedBytes(model.parameters()) as kept, torch.autocast(device, dtype=torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    return kept.bytes


@contextlib.contextmanager
def _tiles_as_on_a_gpu() -> Iterator[None]:
    """TRL's fused output layer allocates nothing beside its tiles on a GPU, where Triton works in place."""
    kept = {
        name: getattr(chunked_logprob, name) for name in ("_forward_tile", "_backward_tile", "_addmm_fp32")
    }
    for name in kept:
        setattr(chunked_logprob, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(chunked_logprob, name, function)
