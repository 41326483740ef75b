"""Models whose packed rows the trainer keeps apart without a mask; the estimate of memory counts masks by this rule."""

#: Classes of transformers with plain causal attention, over all tokens or a sliding window, in every layer. Each of
#: them is compared with its masked attention in ``tests/trainer/train/test_packed_attention.py``.
_WITHOUT_MASK = frozenset(
    {
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "Glm4ForCausalLM",
        "GraniteForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "SmolLM3ForCausalLM",
    }
)


def packs_without_mask(architecture: str) -> bool:
    """True if packed rows of the model need no mask of quadratic size, on any device."""
    return architecture in _WITHOUT_MASK
