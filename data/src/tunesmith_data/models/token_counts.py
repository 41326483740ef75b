"""Token counts of rows, and findings for rows that are too long to learn from."""

from collections.abc import Sequence

from tunesmith_contract.methods import DistillationMethod, GRPOMethod, Method, PretrainingMethod, RLOOMethod
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.schema.formats import Row

from .rendering import Renderer, RenderError


def count_tokens(renderer: Renderer, rows: Sequence[Row], method: Method) -> list[int | Finding]:
    """Tokens of each row (of a preference with the longer answer), or a finding if nothing can be learned from it.

    Args:
        renderer: renderer of the model that is trained.
        rows: canonical rows of one format.
        method: training method; it has the maximum length.

    Raises:
        UserError: the answers of a row can't be located by the model's template.
    """
    if rows and "chosen" in rows[0]:
        return [_measure_pair(row, renderer, method) for row in rows]
    return [
        _judge(row, length, renderer, method)
        for row, length in zip(rows, renderer.lengths(rows), strict=True)
    ]


def is_cut(length: int, method: Method) -> bool:
    """True if a row is truncated; longer text continues in the next sequence."""
    return length > method.max_length and not isinstance(method.member, PretrainingMethod)


def _measure_pair(row: Row, renderer: Renderer, method: Method) -> int | Finding:
    try:
        pair = renderer.pair(row)
    except RenderError as error:
        return _refused(error)
    return pair.length if len(pair.prompt) < method.max_length else _answer_lost(pair.length, method)


def _judge(row: Row, length: int | RenderError, renderer: Renderer, method: Method) -> int | Finding:
    if isinstance(length, RenderError):
        return _refused(length)
    member = method.member
    if isinstance(member, GRPOMethod | RLOOMethod | DistillationMethod):
        return _check_room(length, member.max_length, member.max_completion_length) or length
    if length < method.max_length or renderer.begins_within(row, method.max_length):
        return length
    return _answer_lost(length, method)


def _answer_lost(length: int, method: Method) -> Finding:
    """Finding for a row whose answer is beyond the maximum length."""
    found = f"no answer within the first {method.max_length:,} of {length:,} tokens"
    return Finding("answer_truncated", found, "shorten the row or raise maxLength")


def _check_room(prompt: int, limit: int, answer: int) -> Finding | None:
    """Finding for a prompt that leaves too little room for answers."""
    if prompt + answer <= limit:
        return None
    found = f"a prompt of {prompt:,} tokens and answers of {answer:,}, more than {limit:,} together"
    advice = "shorten the prompt, raise maxLength or lower maxCompletionLength"
    return Finding("prompt_too_long", found, advice)


def _refused(error: RenderError) -> Finding:
    return Finding("template_error", str(error), "follow the model's template")
