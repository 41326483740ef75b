"""Batch generation: left padding, batches by length, key-value cache of the shared prefix."""

import copy
import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from tunesmith_contract.evaluation import Decoding
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError, classify

from .batch_limit import BatchLimit
from .decoding import (
    AnswerEnd,
    SeededSampling,
    StepClock,
    StopStrings,
    cut_at_stop,
    find_answer_end,
    greedy_config,
)

#: A shorter shared prefix is not worth a forward pass of its own.
MIN_SHARED_TOKENS = 32

#: Recurrent models whose configuration names no types of layers.
_RECURRENT = frozenset(
    {"mamba", "mamba2", "falcon_mamba", "rwkv", "jamba", "bamba", "zamba", "zamba2", "xlstm"}
)

Result = TypeVar("Result")


class EncodedPrompt(NamedTuple):
    """Prompt as token ids, and the seed of its answer."""

    ids: list[int]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """Generated answer.

    Attributes:
        text: without end and padding tokens; other special tokens, such as marks of thinking and calls, are kept.
        tokens: number of tokens, without an end token.
        truncated: it was cut at the maximum length.
        seconds: time from the beginning of its batch to its last token.
    """

    text: str
    tokens: int
    truncated: bool
    seconds: float


class AnswerText:
    """Text of the token ids that a model generates.

    Args:
        tokenizer: its tokenizer, with a padding token.
        end: end of an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: AnswerEnd) -> None:
        self._tokenizer, self._end = tokenizer, end
        self._dropped = {
            *end.tokens,
            tokenizer.pad_token_id,
            tokenizer.bos_token_id,
            tokenizer.unk_token_id,
        }

    def read(self, ids: Sequence[int], decoding: Decoding) -> Generated:
        """Answer of generated token ids, up to the first end token or stop string; without its time."""
        own = list(takewhile(lambda token: token not in self._end.tokens, ids))
        text, stopped = cut_at_stop(self.decode(own), (*decoding.stop, *self._end.strings))
        truncated = not stopped and len(own) == decoding.max_new_tokens
        return Generated(text, len(own), truncated, 0.0)

    def decode(self, ids: Sequence[int]) -> str:
        """Text with the special tokens that may be marks of thinking or calls, as the model wrote it."""
        kept = [token for token in ids if token not in self._dropped]
        return str(
            self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


class Generator:
    """Generator for one model, with its active adapter if it has one.

    Answers depend on the prompt, the decoding and the seed alone: the model's own generation configuration is replaced.
    In float32 they don't depend on the batch either; in bfloat16 kernels for other batch sizes round differently.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: its tokenizer, with a padding token.
        limit: largest batch; lowered when memory runs out.
        end: end of an answer; by default that of the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        limit: BatchLimit | None = None,
        end: AnswerEnd | None = None,
    ) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._limit = limit or BatchLimit()
        self._end = end or find_answer_end(model.generation_config, tokenizer)
        self._text = AnswerText(tokenizer, self._end)
        replace_configuration(model)

    def answer(self, prompts: Sequence[EncodedPrompt], decoding: Decoding) -> Iterator[dict[int, Generated]]:
        """Generate all answers; yields one dictionary per batch, from the prompt's index to its answer.

        The longest prompts come first, so that too little memory fails the run at its start. A batch for which memory
        does not suffice is halved and tried again.

        Raises:
            StageError: memory does not suffice for one prompt alone.
        """
        remaining = longest_first([prompt.ids for prompt in prompts])
        if not remaining:
            return
        cache = self._shared_cache([prompt.ids for prompt in prompts], decoding)
        while remaining:
            longest = len(prompts[remaining[0]].ids) + decoding.max_new_tokens
            batch = remaining[: self._limit.count_rows(longest)]
            answers = self._try_batch([prompts[index] for index in batch], cache, decoding)
            if answers is not None:
                yield dict(zip(batch, answers, strict=True))
                remaining = remaining[len(batch) :]
            elif len(batch) > 1:
                self._limit.halve(len(batch), longest)
            elif cache is not None:
                cache = None
            else:
                raise out_of_memory(longest - decoding.max_new_tokens, decoding.max_new_tokens)

    def _shared_cache(self, prompts: Sequence[list[int]], decoding: Decoding) -> DynamicCache | None:
        """Key-value cache of the common prefix, if it is worth it and padding behind it changes nothing."""
        longest = max(map(len, prompts)) + decoding.max_new_tokens
        shared = shared_length(prompts)
        if shared < MIN_SHARED_TOKENS or longest > gap_limit(self._model.config):
            return None
        return within_memory(lambda: self._compute_cache(prompts[0][:shared]))

    def _try_batch(
        self, prompts: list[EncodedPrompt], cache: DynamicCache | None, decoding: Decoding
    ) -> list[Generated] | None:
        """Answers of a batch, or None if memory does not suffice."""
        return within_memory(lambda: self._generate(prompts, cache, decoding))

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
        self, prompts: list[EncodedPrompt], shared: DynamicCache | None, decoding: Decoding
    ) -> list[Generated]:
        prefix_length = shared.get_seq_length() if shared is not None else 0
        ids, mask = pad_left([prompt.ids for prompt in prompts], prefix_length, self._pad)
        past = {}
        if shared is not None:
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(prompts))
            past = {"past_key_values": cache}
        processors = LogitsProcessorList()
        if decoding.temperature > 0:
            seeds = [prompt.seed for prompt in prompts]
            processors.append(SeededSampling(seeds, decoding.temperature, decoding.top_p))
        strings = (*decoding.stop, *self._end.strings)
        clock, stop = StepClock(), StopStrings(self._text.decode, len(ids[0]), strings) if strings else None
        output = self._model.generate(
            input_ids=torch.tensor(ids, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            generation_config=greedy_config(self._end, self._pad, decoding.max_new_tokens),
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([clock, *([stop] if stop else [])]),
            **past,
        )
        lengths = stop.lengths if stop else {}
        return [
            self._read(row[: lengths.get(index)], clock, decoding)
            for index, row in enumerate(output[:, len(ids[0]) :].tolist())
        ]

    def _read(self, ids: list[int], clock: StepClock, decoding: Decoding) -> Generated:
        """Answer of a row of generated token ids."""
        answer = self._text.read(ids, decoding)
        steps = min(answer.tokens + 1, len(clock.seconds))
        return replace(answer, seconds=clock.seconds[steps - 1] if steps else 0.0)

    @property
    def _pad(self) -> int:
        pad: int = self._tokenizer.pad_token_id
        return pad


def replace_configuration(model: Any) -> None:
    """Take away a model's own generation configuration, and that of each model that wraps it or that it wraps.

    Transformers fills what the configuration of a call leaves open from the model's own one.
    """
    for module in model.modules():
        if "generation_config" in vars(module):
            module.generation_config = GenerationConfig()


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


def within_memory(compute: Callable[[], Result]) -> Result | None:
    """Result of a computation, or None if memory did not suffice for it."""
    try:
        return compute()
    except RuntimeError as error:
        if classify(error)[0] is not FailureCategory.OUT_OF_MEMORY:
            raise
    # Outside of the handler, since the exception's traceback refers to the tensors.
    release_memory()
    return None


def out_of_memory(prompt_tokens: int, max_new_tokens: int) -> StageError:
    """Failure of a single item for which memory does not suffice."""
    message = (
        f"memory does not suffice for a single item beside the model: a prompt of {prompt_tokens:,} tokens and an "
        f"answer of up to {max_new_tokens:,}: lower fewShot or maxNewTokens, leave out the longest items, or choose "
        "GPUs with more memory"
    )
    return StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
