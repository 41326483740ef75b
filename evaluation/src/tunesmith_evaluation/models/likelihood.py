"""Likelihood of expected answers under a model, in batches."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from tunesmith_evaluation.metrics.answers import Likelihood

from .batch_limit import BatchLimit
from .generation import longest_first, out_of_memory, pad_left, within_memory

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


def measure_likelihoods(
    model: Any, answers: Sequence[EncodedAnswer], pad: int, limit: BatchLimit
) -> Iterator[dict[int, Likelihood]]:
    """Likelihoods of answers; yields one dictionary per batch, from the answer's index to its likelihood.

    Args:
        model: a causal language model, with its active adapter if it has one.
        answers: the answers; none is empty.
        pad: id of the padding token.
        limit: largest batch; lowered when memory runs out.

    Raises:
        StageError: memory does not suffice for one answer alone.
    """
    remaining = longest_first([answer.ids for answer in answers])
    vocabulary = model.config.get_text_config().vocab_size
    while remaining:
        longest = len(answers[remaining[0]].ids)
        rows = min(limit.count_rows(longest), MAX_LOGITS // (longest * vocabulary))
        batch = remaining[: max(1, rows)]
        values = within_memory(partial(_measure, model, [answers[index] for index in batch], pad))
        if values is not None:
            yield dict(zip(batch, values, strict=True))
            remaining = remaining[len(batch) :]
        elif len(batch) > 1:
            limit.halve(len(batch), longest)
        else:
            raise out_of_memory(longest, 0)


@torch.inference_mode()
def _measure(model: Any, answers: Sequence[EncodedAnswer], pad: int) -> list[Likelihood]:
    ids, mask = pad_left([answer.ids for answer in answers], 0, pad)
    tokens, attended = (torch.tensor(rows, device=model.device) for rows in (ids, mask))
    positions = (attended.cumsum(dim=1) - 1).clamp(min=0)
    kept = max(answer.length for answer in answers)
    # The logits before each token predict it: one more than there are answer tokens, without the last.
    logits = model(
        input_ids=tokens,
        attention_mask=attended,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=kept + 1,
    ).logits[:, :-1]
    targets = tokens[:, -kept:].to(logits.device)
    chosen = logits.gather(2, targets[:, :, None])[:, :, 0].float()
    log_probabilities = (chosen - logits.float().logsumexp(dim=2)).tolist()
    is_best = (logits.argmax(dim=2) == targets).tolist()
    return [
        Likelihood(sum(row[kept - answer.length :]), answer.length, all(best[kept - answer.length :]))
        for row, best, answer in zip(log_probabilities, is_best, answers, strict=True)
    ]
