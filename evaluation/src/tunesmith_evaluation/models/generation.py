"""Greedy batch generation: left padding, batches by length, key-value cache of the shared prefix."""

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError, classify

from .batch_limit import BatchLimit

#: A shorter shared prefix is not worth a forward pass of its own.
MIN_SHARED_TOKENS = 32

Result = TypeVar("Result")


class Generator:
    """Greedy generator for one model, with its active adapter if it has one.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a padding token.
        limit: largest batch; lowered when memory runs out.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, limit: BatchLimit | None = None
    ) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._limit = limit or BatchLimit()

    def answer(self, prompts: Sequence[list[int]], max_new_tokens: int) -> Iterator[dict[int, str]]:
        """Generate all answers; yields one dictionary per batch, from the prompt's index to its answer.

        The longest prompts come first, so that too little memory fails the run at its start. A batch for which memory
        does not suffice is halved and tried again.

        Args:
            prompts: token ids.
            max_new_tokens: maximum length of an answer, in tokens.

        Raises:
            StageError: memory does not suffice for one prompt alone.
        """
        remaining = longest_first(prompts)
        if not remaining:
            return
        shared = shared_length(prompts)
        cache = None
        if shared >= MIN_SHARED_TOKENS:
            cache = _within_memory(lambda: self._compute_cache(prompts[0][:shared]))
        while remaining:
            longest = len(prompts[remaining[0]]) + max_new_tokens
            batch = remaining[: self._limit.count_rows(longest)]
            texts = self._try_batch([prompts[index] for index in batch], cache, max_new_tokens)
            if texts is not None:
                yield dict(zip(batch, texts, strict=True))
                remaining = remaining[len(batch) :]
            elif len(batch) > 1:
                self._limit.halve(len(batch), longest)
            elif cache is not None:
                cache = None
            else:
                raise _out_of_memory(longest - max_new_tokens, max_new_tokens)

    def _try_batch(
        self, prompts: list[list[int]], cache: DynamicCache | None, max_new_tokens: int
    ) -> list[str] | None:
        """Answers of a batch, or None if memory does not suffice."""
        return _within_memory(lambda: self._generate(prompts, cache, max_new_tokens))

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


def longest_first(prompts: Sequence[list[int]]) -> list[int]:
    """Indices of the prompts, by length."""
    return sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))


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


def release_memory() -> None:
    """Return the memory of objects that are no longer used to the GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _within_memory(compute: Callable[[], Result]) -> Result | None:
    """Result of a computation, or None if memory did not suffice for it."""
    try:
        return compute()
    except RuntimeError as error:
        if classify(error)[0] is not FailureCategory.OUT_OF_MEMORY:
            raise
    # Outside of the handler, since the exception's traceback refers to the tensors.
    release_memory()
    return None


def _out_of_memory(prompt_tokens: int, max_new_tokens: int) -> StageError:
    message = (
        f"memory does not suffice for a single item beside the model: a prompt of {prompt_tokens:,} tokens and an "
        f"answer of up to {max_new_tokens:,}: lower fewShot or maxNewTokens, leave out the longest items, or choose "
        "GPUs with more memory"
    )
    return StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
