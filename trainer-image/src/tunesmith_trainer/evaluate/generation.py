"""Greedy batch generation: left padding, batches by length, key-value cache of the shared prefix."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase

BATCH_ROWS = 32
BATCH_TOKENS = 32_768
#: A shorter shared prefix is not worth a forward pass of its own.
MIN_SHARED_TOKENS = 32


class Generator:
    """Greedy generator for one model, with its active adapter if it has one.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a padding token.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer

    def answer(self, prompts: Sequence[list[int]], max_new_tokens: int) -> Iterator[dict[int, str]]:
        """Generate all answers; yields one dictionary per batch, from the prompt's index to its answer.

        Args:
            prompts: token ids.
            max_new_tokens: maximum length of an answer, in tokens.
        """
        if not prompts:
            return
        shared = shared_length(prompts)
        cache = self._compute_cache(prompts[0][:shared]) if shared >= MIN_SHARED_TOKENS else None
        for batch in make_batches([len(prompt) for prompt in prompts], max_new_tokens):
            texts = self._generate([prompts[index] for index in batch], cache, max_new_tokens)
            yield dict(zip(batch, texts, strict=True))

    @torch.inference_mode()
    def _compute_cache(self, ids: list[int]) -> DynamicCache:
        """Key-value cache of the prefix that all prompts share."""
        cache = DynamicCache(config=self._model.config.get_text_config())
        self._model(
            input_ids=torch.tensor([ids], device=self._model.device), past_key_values=cache, logits_to_keep=1
        )
        return cache

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], shared: DynamicCache | None, max_new_tokens: int
    ) -> list[str]:
        prefix_length = shared.get_seq_length() if shared is not None else 0
        ids, mask = pad_left(prompts, prefix_length, self._tokenizer.pad_token_id)
        past = {}
        if shared is not None:
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(prompts))
            past = {"past_key_values": cache}
        output = self._model.generate(
            input_ids=torch.tensor(ids, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            generation_config=self._config(max_new_tokens),
            **past,
        )
        answers: list[str] = self._tokenizer.batch_decode(output[:, len(ids[0]) :], skip_special_tokens=True)
        return answers

    def _config(self, max_new_tokens: int) -> GenerationConfig:
        """Greedy decoding that stops at the end tokens of both model and tokenizer, without sampling defaults."""
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        stop = sorted({token for token in [*ends, self._tokenizer.eos_token_id] if token is not None})
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=stop,
            pad_token_id=self._tokenizer.pad_token_id,
        )


def make_batches(lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """Group prompts of similar length into batches; returns their indices, longest first.

    With the longest batch first, too little memory fails the run at its start.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        if batches:
            widest = lengths[batches[-1][0]] + max_new_tokens
            rows = len(batches[-1]) + 1
            if rows <= BATCH_ROWS and rows * widest <= BATCH_TOKENS:
                batches[-1].append(index)
                continue
        batches.append([index])
    return batches


def shared_length(prompts: Sequence[list[int]]) -> int:
    """Length in tokens of the prompts' common prefix, at least one less than the shortest prompt."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    for position in range(most):
        if first[position] != last[position]:
            return position
    return most


def pad_left(
    prompts: Sequence[list[int]], prefix_length: int, pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask, both (prompts, longest prompt); padding follows the shared prefix."""
    width = max(len(prompt) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        missing = width - len(prompt)
        ids.append([*prompt[:prefix_length], *[pad] * missing, *prompt[prefix_length:]])
        mask.append([*[1] * prefix_length, *[0] * missing, *[1] * (len(prompt) - prefix_length)])
    return ids, mask
