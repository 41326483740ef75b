"""Batch generation: batches by length, key-value cache of the shared prefix, rows that leave when they have ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from tunesmith_contract.evaluation import Decoding

from .batch_limit import BatchLimit
from .decoding import (
    AnswerEnd,
    EndedRows,
    SeededSampling,
    StepClock,
    StopStrings,
    cut_at_stop,
    find_answer_end,
    greedy_config,
)
from .memory import out_of_memory, within_memory
from .padding import longest_first, pad_left
from .shared_prefix import gap_limit, repeat_cache, shared_prefix


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


class _Batch:
    """Rows whose answers are being generated.

    Args:
        rows: index of each row's prompt.
        ids: token ids of the prompts, (rows, tokens).
        mask: attention mask, (rows, tokens).
        cache: keys and values of the beginning of the prompts, if they are there already.
    """

    def __init__(
        self, rows: list[int], ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None
    ) -> None:
        self.rows, self.ids, self.mask, self.cache = rows, ids, mask, cache
        self.start = ids.shape[1]

    @property
    def steps(self) -> int:
        """Number of tokens that each row has been continued by."""
        return self.ids.shape[1] - self.start

    def grow(self, ids: torch.Tensor, cache: DynamicCache) -> None:
        """Take over the rows with the tokens that were generated."""
        added = self.mask.new_ones(len(ids), ids.shape[1] - self.mask.shape[1])
        self.ids, self.mask, self.cache = ids, torch.cat([self.mask, added], dim=1), cache

    def keep(self, places: list[int]) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[place] for place in places]
        if self.rows:
            assert self.cache is not None
            self.ids, self.mask = self.ids[places], self.mask[places]
            self.cache.batch_select_indices(torch.tensor(places, device=self.ids.device))


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
        # Recurrent layers keep states that can't be selected by row.
        self._can_shrink = gap_limit(model.config) > 0
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
        beginnings = [prompt.ids for prompt in prompts]
        cache = shared_prefix(
            self._model, beginnings, len(beginnings[remaining[0]]) + decoding.max_new_tokens
        )
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

    def _try_batch(
        self, prompts: list[EncodedPrompt], cache: DynamicCache | None, decoding: Decoding
    ) -> list[Generated] | None:
        """Answers of a batch, or None if memory does not suffice."""
        return within_memory(lambda: self._generate(prompts, cache, decoding))

    @torch.inference_mode()
    def _generate(
        self, prompts: list[EncodedPrompt], shared: DynamicCache | None, decoding: Decoding
    ) -> list[Generated]:
        """Answers of a batch; when half of its rows have ended, the others go on without them."""
        prefix_length = shared.get_seq_length() if shared is not None else 0
        padded = pad_left([prompt.ids for prompt in prompts], prefix_length, self._pad)
        ids, mask = (torch.tensor(rows, device=self._model.device) for rows in padded)
        batch = _Batch(list(range(len(prompts))), ids, mask, repeat_cache(shared, len(prompts)))
        sampling = None
        if decoding.temperature > 0:
            seeds = [prompt.seed for prompt in prompts]
            sampling = SeededSampling(seeds, decoding.temperature, decoding.top_p)
        clock, answers = StepClock(), dict[int, Generated]()
        while batch.rows:
            going = []
            for place, answer in enumerate(self._continue(batch, decoding, sampling, clock)):
                if answer is None:
                    going.append(place)
                else:
                    answers[batch.rows[place]] = self._read(answer, clock, decoding)
            batch.keep(going)
            if sampling is not None:
                sampling.keep(going)
        return [answers[index] for index in range(len(prompts))]

    def _continue(
        self, batch: "_Batch", decoding: Decoding, sampling: SeededSampling | None, clock: StepClock
    ) -> list[list[int] | None]:
        """Token ids of the answers of all rows, once half of them have ended; None for a row that has not."""
        strings = (*decoding.stop, *self._end.strings)
        stop = StopStrings(self._text.decode, batch.start, strings) if strings else None
        ended = EndedRows(self._end.tokens, stop, shrinks=self._can_shrink)
        output = self._model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            generation_config=greedy_config(self._end, self._pad, decoding.max_new_tokens - batch.steps),
            logits_processor=LogitsProcessorList([sampling] if sampling else []),
            # The last one asks the one before it which rows have ended.
            stopping_criteria=StoppingCriteriaList([clock, *([stop] if stop else []), ended]),
            **({"past_key_values": batch.cache} if batch.cache is not None else {}),
        )
        batch.grow(output.sequences, output.past_key_values)
        lengths = stop.lengths if stop else {}
        is_over = batch.steps >= decoding.max_new_tokens
        return [
            row[: lengths.get(place)] if is_over or place in ended.rows else None
            for place, row in enumerate(batch.ids[:, batch.start :].tolist())
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
