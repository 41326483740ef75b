"""Layer sizes of a model, measured on a weightless copy (torch's meta device)."""

from collections import Counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tunesmith_contract.report import MAX_EXPERTS, MAX_LINEAR_NAME, MAX_LINEARS, Linear, ModelShape


def build_skeleton(config: Any) -> Any:
    """Causal language model on torch's meta device: all modules, no weights.

    It takes some hundredths of a second, whatever the size, and is exact where a formula would have to know
    each architecture's ways (experts, latent attention, state spaces).
    """
    causal: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return causal.from_config(config, dtype=torch.bfloat16)


def count_parameters(model: Any) -> int:
    """Number of parameters of a model; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def describe_shape(model: Any) -> ModelShape:
    """Sizes that determine memory. The model may have an adapter attached afterwards."""
    config = model.config.get_text_config()
    heads = _first(config, "num_attention_heads", "n_head") or 1
    hidden = _first(config, "hidden_size", "n_embd")
    output, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    return ModelShape(
        hidden_size=hidden,
        intermediate_size=_intermediate_size(config, hidden),
        layers=_first(config, "num_hidden_layers", "n_layer"),
        attention_heads=heads,
        key_value_heads=_first(config, "num_key_value_heads") or heads,
        head_size=_first(config, "head_dim") or hidden // heads,
        vocabulary_size=inputs.weight.shape[0],
        tied_embeddings=output is not None and output.weight is inputs.weight,
        linears=_linears(model),
        experts=_experts(model) if _first(config, "num_experts_per_tok") else (),
    )


def _intermediate_size(config: Any, hidden: int) -> int:
    """Width of the feed-forward block; with experts, the sum over the active ones."""
    dense = _first(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden
    active = _first(config, "num_experts_per_tok")
    if not active:
        return dense
    expert = _first(config, "moe_intermediate_size") or dense
    shared = _first(config, "shared_expert_intermediate_size")
    if not shared:
        shared = _first(config, "n_shared_experts") * expert
    return active * expert + shared


def _linears(model: Any) -> tuple[Linear, ...]:
    """Layers on which PEFT's all-linear puts an adapter, by name and shape, the largest first."""
    output = model.get_output_embeddings()
    counts: Counter[tuple[str, int, int]] = Counter()
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output:
            name = path.rpartition(".")[2][:MAX_LINEAR_NAME]
            outputs, inputs = module.weight.shape
            if isinstance(module, Conv1D):
                inputs, outputs = outputs, inputs
            counts[name, inputs, outputs] += 1
    groups = [Linear(*shape, layers) for shape, layers in counts.items()]
    return tuple(sorted(_limit_groups(groups), key=_weights, reverse=True))


def _experts(model: Any) -> tuple[Linear, ...]:
    """Expert weights that PEFT's all-linear adapts, found by attaching an adapter of rank 1."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import ParamWrapper

    adapted: Any = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    counts: Counter[tuple[str, int, int]] = Counter()
    wrappers: list[Any] = [module for module in adapted.modules() if isinstance(module, ParamWrapper)]
    for module in wrappers:
        layers, inputs = module.lora_A["default"].weight.shape
        outputs = module.lora_B["default"].weight.shape[0]
        counts[module.parameter_name[:MAX_LINEAR_NAME], inputs, outputs] += layers
    groups = [Linear(*shape, layers) for shape, layers in counts.items()]
    return tuple(sorted(groups, key=_weights, reverse=True)[:MAX_EXPERTS])


def _weights(linear: Linear) -> int:
    return linear.inputs * linear.outputs * linear.layers


def _limit_groups(groups: list[Linear]) -> list[Linear]:
    """Groups reduced to the report's maximum: several shapes of a name become one mean shape."""
    if len(groups) <= MAX_LINEARS:
        return groups
    names = dict.fromkeys(group.name for group in groups)
    merged = [_mean([group for group in groups if group.name == name]) for name in names]
    return sorted(merged, key=_weights, reverse=True)[:MAX_LINEARS]


def _mean(groups: list[Linear]) -> Linear:
    """One group with as many layers, as many weights and as many inputs as these have together."""
    layers = sum(group.layers for group in groups)
    inputs = sum(group.inputs * group.layers for group in groups) // layers
    weights = sum(map(_weights, groups))
    return Linear(groups[0].name, inputs, weights // (inputs * layers), layers)


def _first(config: Any, *names: str) -> int:
    """First of several fields that is set; 0 if none is."""
    return next((int(value) for name in names if (value := getattr(config, name, None))), 0)
