"""Check ``low_diversity``: rows with the same opening, ending or prompt pattern."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import SAMPLE_CHARACTERS, SampledRow, normalized

_MIN_ROWS = 50
#: Words of an opening or ending; shorter answers have none.
_OPENING_WORDS = 4
_MIN_WORDS = 10
#: Share of similar rows from which there is a note, and a warning.
_NOTED, _WARNED = 0.5, 0.9
#: Share of prompts from which a word belongs to the pattern; other words are gaps.
_FIXED_WORD = 0.1
#: Minimum number of fixed words of a pattern, and their share of the prompt.
_FIXED_WORDS, _FIXED_SHARE = 3, 0.4
_GAP = "…"
_STRUCTURED = ("{", "[", "<", "```")
_MEASURED_ROWS = 2_000
_WORDS = re.compile(r"\w+(?:['’]\w+)?")  # noqa: RUF001 - people write this apostrophe


@dataclass(frozen=True, slots=True)
class _SharedPattern:
    """Pattern that many rows share."""

    description: str
    shared: str
    rows: list[SampledRow]
    share: float


class LowDiversity(ColumnCheck):
    """``low_diversity``: half of the answers begin, or end, with the same words; half of the prompts have one pattern.

    The message adds three measures of the answers: distinct bigrams (Li et al. 2016, arXiv:1510.03055), bits of entropy
    of the first two words, and how far they are compressed (Shaib et al. 2024, arXiv:2403.00553). Answers that are
    classes, JSON or code are similar by nature.
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft for the pattern that most rows of the sample share."""
        patterns = [pattern for pattern in _shared_patterns(columns) if pattern and pattern.share >= _NOTED]
        if not patterns:
            return
        worst = max(patterns, key=lambda pattern: pattern.share)
        flagged = columns.rank(np.array([row.position for row in worst.rows], dtype=np.int64))
        yield IssueDraft(
            check="low_diversity",
            severity=Severity.WARNING if worst.share >= _WARNED else Severity.NOTE,
            message=f"{percent(worst.share)} of {worst.description}: {worst.shared!r} ({_measures(columns)})",
            advice="ignore this if it is intended; otherwise add rows with more varied questions and answers",
            flagged=flagged,
            details={int(position): worst.shared for position in flagged.positions[:MAX_EXAMPLES]},
        )


def _shared_patterns(columns: Columns) -> Iterator[_SharedPattern | None]:
    if columns.classes is None:
        answers = [(row, words) for row in columns.sample if len(words := _prose(row.answer)) >= _MIN_WORDS]
        whole = [pair for pair in answers if len(pair[0].answer) < SAMPLE_CHARACTERS]
        yield _most_shared("the longer answers begin with the same words", answers, slice(0, _OPENING_WORDS))
        yield _most_shared("the longer answers end with the same words", whole, slice(-_OPENING_WORDS, None))
    prompts = [(row, normalized(row.question).split()) for row in columns.sample if row.question]
    yield _most_shared("the prompts have the same pattern", _patterns(prompts), slice(None))


def _prose(text: str) -> list[str]:
    return [] if text.lstrip().startswith(_STRUCTURED) else _WORDS.findall(text.casefold())


def _most_shared(
    description: str, rows: Sequence[tuple[SampledRow, list[str]]], words: slice
) -> _SharedPattern | None:
    """Most common words at that position."""
    shared = Counter(" ".join(row_words[words]) for _, row_words in rows if row_words)
    if len(rows) < _MIN_ROWS or not shared:
        return None
    top, count = min(shared.items(), key=lambda item: (-item[1], item[0]))
    return _SharedPattern(
        description,
        top,
        [row for row, row_words in rows if " ".join(row_words[words]) == top],
        count / len(rows),
    )


def _patterns(rows: Sequence[tuple[SampledRow, list[str]]]) -> list[tuple[SampledRow, list[str]]]:
    """Patterns of prompts, with gaps for rare words; empty for prompts without a pattern."""
    held = Counter(word for _, words in rows for word in set(words))
    fixed = {word for word, count in held.items() if count >= max(5, _FIXED_WORD * len(rows))}
    return [(row, _pattern(words, fixed)) for row, words in rows]


def _pattern(words: list[str], fixed: set[str]) -> list[str]:
    pattern: list[str] = []
    for word in words:
        if word in fixed:
            pattern.append(word)
        elif pattern[-1:] != [_GAP]:
            pattern.append(_GAP)
    count = sum(word in fixed for word in words)
    return pattern if count >= max(_FIXED_WORDS, _FIXED_SHARE * len(words)) else []


def _measures(columns: Columns) -> str:
    answers = [row.answer for row in columns.sample[:_MEASURED_ROWS]]
    words = [_WORDS.findall(answer.casefold()) for answer in answers]
    bigrams = [pair for answer_words in words for pair in pairwise(answer_words)]
    distinct = len(set(bigrams)) / max(1, len(bigrams))
    openings = np.array(list(Counter(tuple(answer_words[:2]) for answer_words in words).values())) / max(
        1, len(words)
    )
    entropy = float((openings * np.log2(1 / openings)).sum())
    text = "\n".join(answers).encode()
    compressed = len(text) / max(1, len(zlib.compress(text)))
    return f"distinct bigrams {distinct:.2f}, openings {entropy:.1f} bits, compressed to 1/{compressed:.1f}"
