"""Small configurations of many architectures."""

from typing import Any

import transformers

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {"head_dim": 32},
    "Mistral": {},
    "Gemma": {"head_dim": 32},
    "Gemma2": {"head_dim": 32},
    "Phi3": {"pad_token_id": 0},
    "Mixtral": {"num_local_experts": 4, **EXPERTS},
    "Qwen3Moe": {"num_experts": 8, **EXPERTS},
    "GPT2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
}


def make_config(architecture: str, **more: Any) -> Any:
    sizes = SMALL | ARCHITECTURES[architecture]
    if architecture == "GPT2":
        sizes = {"vocab_size": 512} | ARCHITECTURES[architecture]
    return getattr(transformers, f"{architecture}Config")(**sizes | more)
