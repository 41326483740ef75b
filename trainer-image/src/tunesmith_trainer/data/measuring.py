"""Counts each row's tokens as its method will see them, and finds rows that it can't learn from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tunesmith_contract.methods import DistillationMethod, GRPOMethod, Method, PretrainingMethod, RLOOMethod

from .findings import Problem
from .formats import Row
from .reading import RefusedRow, SourceFile, SourceRow
from .render import Renderer, RenderError


@dataclass(frozen=True, slots=True)
class Measured:
    """A source with the rows that the method can learn from, the tokens of each, and how many rows lose some."""

    source: SourceFile
    lengths: tuple[int, ...]
    truncated: int


def measure(
    source: SourceFile, renderer: Renderer, method: Method, progress: Callable[[int, int], None]
) -> Measured:
    """Count each row's tokens; a row that the template refuses, or that loses its answer, is a finding.

    Args:
        source: rows that passed their checks.
        renderer: of the model that learns.
        method: what they are for; it says where rows are cut.
        progress: told the number of rows done, and of all.
    """
    rows: list[SourceRow] = []
    lengths: list[int] = []
    refused = list(source.refused)
    for number, row in enumerate(source.rows, start=1):
        progress(number, len(source.rows))
        length = _length(row.row, renderer, method)
        if isinstance(length, Problem):
            finding = length.at(row.file, row.line)
            refused.append(RefusedRow(row.file, row.line, row.row, (finding,)))
        else:
            rows.append(row)
            lengths.append(length)
    truncated = sum(_is_cut(length, method) for length in lengths)
    return Measured(replace(source, rows=tuple(rows), refused=tuple(refused)), tuple(lengths), truncated)


def _length(row: Row, renderer: Renderer, method: Method) -> int | Problem:
    """A row's tokens, of a preference those with the longer answer; or why it teaches nothing."""
    try:
        if "chosen" in row:
            pair = renderer.pair(row)
            length, before = pair.length, len(pair.prompt)
        else:
            tokens = renderer.tokens(row)
            length, before = len(tokens.ids), tokens.start
    except RenderError as error:
        return Problem("template_error", str(error), "follow the model's template")
    member = method.member
    if isinstance(member, GRPOMethod | RLOOMethod | DistillationMethod):
        return _check_room(length, member.max_length, member.max_completion_length) or length
    if before < method.max_length:
        return length
    found = f"no answer within the first {method.max_length:,} of {length:,} tokens"
    return Problem("answer_truncated", found, "shorten the row or raise maxLength")


def _check_room(prompt: int, limit: int, answer: int) -> Problem | None:
    """A prompt has to leave room for the answers that the model will give."""
    if prompt + answer <= limit:
        return None
    found = f"a prompt of {prompt:,} tokens and answers of {answer:,}, more than {limit:,} together"
    advice = "shorten the prompt, raise maxLength or lower maxCompletionLength"
    return Problem("prompt_too_long", found, advice)


def _is_cut(length: int, method: Method) -> bool:
    """Whether a row loses its end; text that is longer goes on in the next sequence."""
    return length > method.max_length and not isinstance(method.member, PretrainingMethod)
