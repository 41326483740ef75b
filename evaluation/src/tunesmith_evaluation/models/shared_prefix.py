"""Key-value cache of the tokens with which all prompts begin, computed once."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from .memory import within_memory

#: A shorter shared prefix is not worth a forward pass of its own.
MIN_SHARED_TOKENS = 32

#: Recurrent models whose configuration names no types of layers.
_RECURRENT = frozenset(
    {"mamba", "mamba2", "falcon_mamba", "rwkv", "jamba", "bamba", "zamba", "zamba2", "xlstm"}
)


def shared_prefix(model: Any, prompts: Sequence[list[int]], longest: int) -> DynamicCache | None:
    """Key-value cache of the common prefix; None if it is not worth it or padding behind it changes something.

    Args:
        model: a causal language model, with its active adapter if it has one.
        prompts: token ids; not empty.
        longest: largest number of tokens that a prompt has with its answer.
    """
    shared = shared_length(prompts)
    if shared < MIN_SHARED_TOKENS or longest > gap_limit(model.config):
        return None
    return within_memory(lambda: _compute(model, prompts[0][:shared]))


@torch.inference_mode()
def _compute(model: Any, ids: list[int]) -> DynamicCache:
    cache = empty_cache(model)
    model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, logits_to_keep=1)
    return cache


def repeat_cache(cache: DynamicCache | None, rows: int) -> DynamicCache | None:
    """Copy of a cache of one row, for so many rows."""
    if cache is None:
        return None
    repeated = copy.deepcopy(cache)
    repeated.batch_repeat_interleave(rows)
    return repeated


def empty_cache(model: Any) -> DynamicCache:
    """Key-value cache of a model, without tokens."""
    return DynamicCache(config=model.config.get_text_config())


def gap_limit(config: Any) -> float:
    """Number of tokens up to which padding in the middle of a prompt changes no answer.

    Padding stands between the shared prefix and the rest. Layers with full attention don't see it; those with a window
    or chunks count it; recurrent ones can't have it at all.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention", "chunked_attention"}:
        return 0
    if not kinds and getattr(text, "model_type", "") in _RECURRENT:
        return 0
    if kinds == {"full_attention"}:
        return math.inf
    windows: Mapping[str, Any] = {
        name: getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")
    }
    return min((window for window in windows.values() if window), default=math.inf)


def shared_length(prompts: Sequence[list[int]]) -> int:
    """Length in tokens of the prompts' common prefix, at least one less than the shortest prompt."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    for position in range(most):
        if first[position] != last[position]:
            return position
    return most
