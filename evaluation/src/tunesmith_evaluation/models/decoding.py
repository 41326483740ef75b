"""Decoding that depends on the run's parameters alone: end of an answer, stop strings, sampling.

None of it comes from a model's own ``generation_config.json`` (``repetition_penalty``, ``suppress_tokens`` and the
like) but the tokens that end an answer, which belong to the model as its chat template does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    TopPLogitsWarper,
)

_QUESTION, _ANSWER = "one", "two"

#: Tokens beyond the length of a stop string in bytes that are looked at for it: some tokens have no bytes.
_SPARE_TOKENS = 8

#: Rows of a batch from which on half of them are faster than all: smaller batches wait for the weights anyway.
SHRINK_FROM = 16


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """Marks that end an answer.

    Attributes:
        tokens: ids of the end tokens; not empty.
        strings: end of a turn by the chat template, where the tokenizer has no token for it.
    """

    tokens: tuple[int, ...]
    strings: tuple[str, ...] = ()


def find_answer_end(configuration: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> AnswerEnd:
    """End of an answer: of the model, of the tokenizer, and of a turn by the chat template.

    A base model with ChatML ends its turns with ``<|im_end|>``, which is not the end of a text to it.

    Args:
        configuration: the model's own generation configuration.
        tokenizer: the model's tokenizer.
    """
    ends = configuration.eos_token_id
    tokens = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    mark = _end_of_turn(tokenizer)
    if not mark:
        return AnswerEnd(tuple(sorted(tokens)))
    first = tokenizer(mark, add_special_tokens=False)["input_ids"][0]
    if first in tokenizer.added_tokens_decoder:
        return AnswerEnd(tuple(sorted({*tokens, first})))
    return AnswerEnd(tuple(sorted(tokens)), (mark,))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """Text of the chat template behind the assistant's last turn, trimmed; empty if there is none."""
    if not tokenizer.chat_template:
        return ""
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return ""
    _, answer, mark = text.rpartition(_ANSWER)
    return mark.strip() if answer else ""


def greedy_config(end: AnswerEnd, pad: int, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding; sampling is greedy decoding of scores with noise (``SeededSampling``)."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end.tokens),
        pad_token_id=pad,
        return_dict_in_generate=True,
    )


class SeededSampling(LogitsProcessor):
    """Sampling that depends on each row's own seed, not on the batch that it is in.

    Noise of the Gumbel distribution is added to the scores: the highest sum is a sample of their softmax (Gumbel-max;
    Maddison et al. 2014, arXiv:1411.0030). Two models of nearly the same scores get the same noise, and so mostly the
    same samples. The noise is drawn on the device of the scores: other kinds of devices draw other noise.

    Args:
        seeds: seed of each row.
        temperature: divisor of the scores, above 0.
        top_p: share of probability from which tokens are drawn.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._seeds = list(seeds)
        self._sources: list[torch.Generator] = []
        self._temperature = temperature
        self._top_p = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores with noise, both (rows, vocabulary)."""
        scaled: Any = scores.float() / self._temperature
        if self._top_p is not None:
            scaled = self._top_p(input_ids, scaled)
        if not self._sources:
            self._sources = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        noise = torch.empty_like(scaled)
        for row, source in zip(noise, self._sources, strict=True):
            row.exponential_(generator=source)
        noisy: torch.FloatTensor = scaled - noise.log()
        return noisy

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these, which go on with their own noise."""
        self._sources = [self._sources[row] for row in rows]


class StopStrings(StoppingCriteria):
    """End of the rows whose answers contain a stop string.

    It saves time only: ``cut_at_stop`` decides where an answer ends.

    Args:
        decode: text of token ids.
        start: length in tokens of the prompts.
        strings: the stop strings; not empty.

    Attributes:
        lengths: tokens of the answer when its stop string was found, by row.
    """

    def __init__(self, decode: Callable[[list[int]], str], start: int, strings: Sequence[str]) -> None:
        self._decode, self._start, self._strings = decode, start, strings
        self._tail = max(len(string.encode()) for string in strings) + _SPARE_TOKENS
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        """True for the rows that end, (rows)."""
        answers = input_ids[:, self._start :].tolist()
        for row, ids in enumerate(answers):
            # The whole text decides: some tokenizers decode the beginning of a text in another way.
            if row not in self.lengths and self._stops(ids[-self._tail :]) and self._stops(ids):
                self.lengths[row] = len(ids)
        ended: Any = torch.tensor(
            [row in self.lengths for row in range(len(answers))], device=input_ids.device
        )
        return ended  # type: ignore[no-any-return]

    def _stops(self, ids: list[int]) -> bool:
        text = self._decode(ids)
        return any(string in text for string in self._strings)


class EndedRows(StoppingCriteria):
    """Rows that have ended; where it may, it stops a large batch once half of them have.

    Args:
        ends: ids of the end tokens.
        stop: criterion of the stop strings, which is asked before this one; None without stop strings.
        shrinks: the batch may be stopped to go on with the other rows.

    Attributes:
        rows: rows that have ended.
    """

    def __init__(self, ends: Sequence[int], stop: StopStrings | None, *, shrinks: bool) -> None:
        self._ends, self._stop, self._shrinks = frozenset(ends), stop, shrinks
        self.rows: set[int] = set()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        """True for all rows once half of them have ended, (rows)."""
        self.rows |= {row for row, token in enumerate(input_ids[:, -1].tolist()) if token in self._ends}
        if self._stop is not None:
            self.rows |= self._stop.lengths.keys()
        total = len(input_ids)
        stops = self._shrinks and total >= SHRINK_FROM and 2 * len(self.rows) >= total
        every: Any = torch.full((total,), stops, dtype=torch.bool, device=input_ids.device)
        return every  # type: ignore[no-any-return]


class StepClock(StoppingCriteria):
    """Clock of the steps of a batch; it stops nothing.

    Attributes:
        seconds: time since the beginning after each step.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._start = now, now()
        self.seconds: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        """False for all rows, (rows)."""
        self.seconds.append(self._now() - self._start)
        none: Any = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return none  # type: ignore[no-any-return]


def cut_at_stop(text: str, strings: Sequence[str]) -> tuple[str, bool]:
    """Text before the first stop string, and True if there is one."""
    places = [place for string in strings if (place := text.find(string)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
