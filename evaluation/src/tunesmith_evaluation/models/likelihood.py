"""Likelihood of expected answers under a model, in batches; tokens that answers share are computed once."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from tunesmith_evaluation.metrics.answers import Likelihood

from .batch_limit import BatchLimit
from .memory import out_of_memory, within_memory
from .padding import pad_left
from .shared_prefix import empty_cache, gap_limit, repeat_cache, shared_prefix

#: Largest number of logits of a batch, 1 GiB in float32.
MAX_LOGITS = 2**28


class EncodedAnswer(NamedTuple):
    """Prompt with its expected answer as token ids; ``start`` is the index of the answer's first token, at least 1."""

    ids: list[int]
    start: int

    @property
    def length(self) -> int:
        """Number of tokens of the answer."""
        return len(self.ids) - self.start

    @property
    def context(self) -> tuple[int, ...]:
        """Tokens before the one whose logits predict the answer's first token."""
        return tuple(self.ids[: self.start - 1])


class _Computed(NamedTuple):
    """Tokens whose keys and values are there already.

    Attributes:
        cache: keys and values; None: there are none, and none are kept.
        mask: attention mask, (rows, tokens).
    """

    cache: DynamicCache | None
    mask: torch.Tensor

    def select(self, places: list[int]) -> "_Computed":
        """One row for each place, which may be repeated; the cache is changed."""
        assert self.cache is not None
        self.cache.batch_select_indices(torch.tensor(places, device=self.mask.device))
        return self._replace(mask=self.mask[places])


def measure_likelihoods(
    model: Any, answers: Sequence[EncodedAnswer], pad: int, limit: BatchLimit
) -> Iterator[dict[int, Likelihood]]:
    """Likelihoods of answers; yields one dictionary per batch, from the answer's index to its likelihood.

    The beginning that all prompts share is computed once, and a prompt that several answers follow once for them all,
    such as the choices of an item.

    Args:
        model: a causal language model, with its active adapter if it has one.
        answers: the answers; none is empty.
        pad: id of the padding token.
        limit: largest batch; lowered when memory runs out.

    Raises:
        StageError: memory does not suffice for one answer alone.
    """
    if not answers:
        return
    remaining = _longest_context_first(answers)
    longest = max(len(answer.ids) for answer in answers)
    contexts = [list(answer.context) for answer in answers]
    shared = shared_prefix(model, contexts, longest) if all(contexts) else None
    joins = longest <= gap_limit(model.config)
    vocabulary = model.config.get_text_config().vocab_size
    while remaining:
        longest = len(answers[remaining[0]].ids)
        rows = min(limit.count_rows(longest), MAX_LOGITS // (longest * vocabulary))
        batch = remaining[: max(1, rows)]
        compute = partial(_measure, model, [answers[index] for index in batch], pad, shared, joins=joins)
        values = within_memory(compute)
        if values is not None:
            yield dict(zip(batch, values, strict=True))
            remaining = remaining[len(batch) :]
        elif len(batch) > 1:
            limit.halve(len(batch), longest)
        elif shared is not None:
            shared = None
        else:
            raise out_of_memory(longest, 0)


def _longest_context_first(answers: Sequence[EncodedAnswer]) -> list[int]:
    """Indices of the answers: those with one context side by side, by the longest of them."""
    lengths: dict[tuple[int, ...], int] = {}
    for answer in answers:
        lengths[answer.context] = max(lengths.get(answer.context, 0), len(answer.ids))
    keys = [(-lengths[answer.context], answer.context, -len(answer.ids)) for answer in answers]
    return sorted(range(len(answers)), key=keys.__getitem__)


@torch.inference_mode()
def _measure(
    model: Any, answers: Sequence[EncodedAnswer], pad: int, shared: DynamicCache | None, *, joins: bool
) -> list[Likelihood]:
    """Likelihoods of a batch.

    Args:
        model: the model.
        answers: the answers.
        pad: id of the padding token.
        shared: keys and values of the beginning of all contexts, if they are there already.
        joins: padding may stand between a context and what follows it.
    """
    contexts = list(dict.fromkeys(answer.context for answer in answers))
    begun = shared.get_seq_length() if shared is not None else 0
    if joins and len(contexts) < len(answers) and min(map(len, contexts)) > begun:
        computed = _compute_contexts(model, contexts, pad, shared)
        computed = computed.select([contexts.index(answer.context) for answer in answers])
        starts = [len(answer.context) for answer in answers]
    else:
        computed, starts = _begin(model, shared, len(answers)), [begun] * len(answers)
    kept = max(answer.length for answer in answers)
    # The last token of an answer predicts nothing that is asked for.
    fed = [answer.ids[start:-1] for answer, start in zip(answers, starts, strict=True)]
    logits, _ = _extend(model, computed, fed, pad, kept)
    targets, _ = pad_left([answer.ids[answer.start :] for answer in answers], 0, pad)
    wanted = torch.tensor(targets, device=logits.device)
    chosen = logits.gather(2, wanted[:, :, None])[:, :, 0].float()
    log_probabilities = (chosen - logits.float().logsumexp(dim=2)).tolist()
    is_best = (logits.argmax(dim=2) == wanted).tolist()
    return [
        Likelihood(sum(row[kept - answer.length :]), answer.length, all(best[kept - answer.length :]))
        for row, best, answer in zip(log_probabilities, is_best, answers, strict=True)
    ]


def _begin(model: Any, shared: DynamicCache | None, rows: int) -> _Computed:
    """Shared beginning for so many rows; nothing without one."""
    length = shared.get_seq_length() if shared is not None else 0
    mask = torch.ones(rows, length, dtype=torch.long, device=model.device)
    return _Computed(repeat_cache(shared, rows), mask)


def _compute_contexts(
    model: Any, contexts: Sequence[tuple[int, ...]], pad: int, shared: DynamicCache | None
) -> _Computed:
    """Keys and values of contexts, each longer than the shared beginning."""
    begin = _begin(model, shared, len(contexts))
    begin = begin._replace(cache=begin.cache or empty_cache(model))
    rest = [list(context[begin.mask.shape[1] :]) for context in contexts]
    _, mask = _extend(model, begin, rest, pad, 1)
    return begin._replace(mask=mask)


def _extend(
    model: Any, computed: _Computed, rows: Sequence[list[int]], pad: int, kept: int
) -> tuple[Any, torch.Tensor]:
    """Logits behind the last tokens of each row, (rows, kept, vocabulary), and the attention mask with these tokens.

    Args:
        model: the model.
        computed: what stands before them; its cache is extended.
        rows: token ids; none is empty.
        pad: id of the padding token.
        kept: number of tokens whose logits are wanted.
    """
    ids, mask = (torch.tensor(part, device=model.device) for part in pad_left(rows, 0, pad))
    attended = torch.cat([computed.mask, mask], dim=1)
    positions = (attended.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    logits = model(
        input_ids=ids,
        attention_mask=attended,
        position_ids=positions,
        past_key_values=computed.cache,
        use_cache=computed.cache is not None,
        logits_to_keep=kept,
    ).logits
    return logits, attended
