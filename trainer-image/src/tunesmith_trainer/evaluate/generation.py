"""Greedy answers in batches: padded on the left, sorted by length, what all prompts share computed once."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase

BATCH_ROWS = 32
BATCH_TOKENS = 32_768
#: A shared beginning shorter than this is not worth a pass of its own.
LEAST_SHARED_TOKENS = 32


class Generator:
    """Answers prompts with a model as it is switched at the moment.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a padding token.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer

    def answer(self, prompts: Sequence[list[int]], max_new_tokens: int) -> Iterator[dict[int, str]]:
        """The answers batch by batch, each by its prompt's position.

        Args:
            prompts: token ids.
            max_new_tokens: an answer ends there at the latest.
        """
        if not prompts:
            return
        shared = shared_length(prompts)
        cache = self._read(prompts[0][:shared]) if shared >= LEAST_SHARED_TOKENS else None
        for batch in make_batches([len(prompt) for prompt in prompts], max_new_tokens):
            texts = self._generate([prompts[index] for index in batch], cache, max_new_tokens)
            yield dict(zip(batch, texts, strict=True))

    @torch.inference_mode()
    def _read(self, ids: list[int]) -> DynamicCache:
        """The keys and values of what all prompts begin with."""
        cache = DynamicCache(config=self._model.config.get_text_config())
        self._model(
            input_ids=torch.tensor([ids], device=self._model.device), past_key_values=cache, logits_to_keep=1
        )
        return cache

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], shared: DynamicCache | None, max_new_tokens: int
    ) -> list[str]:
        beginning = shared.get_seq_length() if shared is not None else 0
        ids, mask = pad_left(prompts, beginning, self._tokenizer.pad_token_id)
        past = {}
        if shared is not None:
            own = copy.deepcopy(shared)
            own.batch_repeat_interleave(len(prompts))
            past = {"past_key_values": own}
        output = self._model.generate(
            input_ids=torch.tensor(ids, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            generation_config=self._config(max_new_tokens),
            **past,
        )
        return self._tokenizer.batch_decode(output[:, len(ids[0]) :], skip_special_tokens=True)

    def _config(self, max_new_tokens: int) -> GenerationConfig:
        """Greedy decoding that stops at any token that ends a turn, whatever the model's defaults are."""
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
    """Positions of prompts in batches of like length, the longest first: a lack of memory shows at once."""
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
    """How many tokens all prompts begin with; each keeps one of its own at least."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    for position in range(most):
        if first[position] != last[position]:
            return position
    return most


def pad_left(
    prompts: Sequence[list[int]], beginning: int, pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask of one width; padding stands after the shared beginning."""
    width = max(len(prompt) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        missing = width - len(prompt)
        ids.append([*prompt[:beginning], *[pad] * missing, *prompt[beginning:]])
        mask.append([*[1] * beginning, *[0] * missing, *[1] * (len(prompt) - beginning)])
    return ids, mask
