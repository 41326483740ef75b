"""Rows that are all alike: one opening, one pattern of prompts, one answer."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, percent
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import normalised
from tunesmith_data.rows.quality.samples import SAMPLE_CHARACTERS, SampledRow

_FEWEST_ROWS = 50
#: Words that an opening or an end is told by; shorter answers have none.
_OPENING_WORDS = 4
_FEWEST_WORDS = 10
#: Share of rows that are alike from which it is noted, and warned of.
_NOTED, _WARNED = 0.5, 0.9
#: A word that this share of prompts holds belongs to a pattern; all others fill it in.
_FIXED_WORD = 0.1
#: A pattern has so many fixed words, and they are this share of the prompt.
_FIXED_WORDS, _FIXED_SHARE = 3, 0.4
_GAP = "…"
_STRUCTURED = ("{", "[", "<", "```")
_MEASURED_ROWS = 2_000
_WORDS = re.compile(r"\w+(?:['’]\w+)?")  # noqa: RUF001 - people write this apostrophe


@dataclass(frozen=True, slots=True)
class _Likeness:
    """What many rows share."""

    what: str
    shared: str
    rows: list[SampledRow]
    share: float


class LowDiversity(ColumnCheck):
    """``low_diversity``: half of the answers begin, or end, with the same words; half of the prompts have one pattern.

    The message adds three measures of the answers: distinct bigrams (Li et al. 2016, arXiv:1510.03055), bits of entropy
    of the first two words, and how far they are compressed (Shaib et al. 2024, arXiv:2403.00553). Answers that are
    classes, JSON or code are alike by nature.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows of the sample: of what most rows share."""
        found = [each for each in _likenesses(columns) if each and each.share >= _NOTED]
        if not found:
            return
        worst = max(found, key=lambda each: each.share)
        suspects = columns.rank(np.array([row.position for row in worst.rows], dtype=np.int64))
        yield Evidence(
            check="low_diversity",
            severity=Severity.WARNING if worst.share >= _WARNED else Severity.NOTE,
            message=f"{percent(worst.share)} of {worst.what}: {worst.shared!r} ({_measures(columns)})",
            advice="if it is meant, all is well; else add rows that ask and answer in other ways",
            suspects=suspects,
            details={int(each): worst.shared for each in suspects.positions[:MAX_EXAMPLES]},
        )


def _likenesses(columns: Columns) -> Iterator[_Likeness | None]:
    if columns.classes is None:
        answers = [
            (row, words) for row in columns.sample if len(words := _prose(row.answer)) >= _FEWEST_WORDS
        ]
        whole = [each for each in answers if len(each[0].answer) < SAMPLE_CHARACTERS]
        yield _most("the longer answers begin with the same words", answers, slice(0, _OPENING_WORDS))
        yield _most("the longer answers end with the same words", whole, slice(-_OPENING_WORDS, None))
    asked = [(row, normalised(row.question).split()) for row in columns.sample if row.question]
    yield _most("the prompts have the same pattern", _patterns(asked), slice(None))


def _prose(text: str) -> list[str]:
    return [] if text.lstrip().startswith(_STRUCTURED) else _WORDS.findall(text.casefold())


def _most(what: str, rows: Sequence[tuple[SampledRow, list[str]]], words: slice) -> _Likeness | None:
    """The words that most rows share in that place."""
    shared = Counter(" ".join(each[words]) for _, each in rows if each)
    if len(rows) < _FEWEST_ROWS or not shared:
        return None
    top, count = min(shared.items(), key=lambda item: (-item[1], item[0]))
    return _Likeness(
        what, top, [row for row, each in rows if " ".join(each[words]) == top], count / len(rows)
    )


def _patterns(rows: Sequence[tuple[SampledRow, list[str]]]) -> list[tuple[SampledRow, list[str]]]:
    """Prompts with gaps for words that few of them hold; no words for prompts that follow no pattern."""
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
    bigrams = [pair for each in words for pair in pairwise(each)]
    distinct = len(set(bigrams)) / max(1, len(bigrams))
    openings = np.array(list(Counter(tuple(each[:2]) for each in words).values())) / max(1, len(words))
    entropy = float((openings * np.log2(1 / openings)).sum())
    text = "\n".join(answers).encode()
    compressed = len(text) / max(1, len(zlib.compress(text)))
    return f"distinct bigrams {distinct:.2f}, openings {entropy:.1f} bits, compressed to 1/{compressed:.1f}"
