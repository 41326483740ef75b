"""Words in which two answers differ."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

#: Words and punctuation with the white space before them; scripts that are written without it, by character.
_WORDS = re.compile(r"\s*[\u3040-\u30ff\u4e00-\u9fff]|\s*[^\W\u3040-\u30ff\u4e00-\u9fff]+|\s*[^\w\s]|\s+")
#: Pairs of words up to which the longest common parts are looked for: the search is quadratic.
_MAX_PAIRS = 160_000


class Piece(NamedTuple):
    """Piece of a text; ``changed`` if the other text lacks it."""

    text: str
    changed: bool


def diff_words(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces that are shared or changed; joined, the pieces are the texts.

    Of texts that are too long for a search, what lies between the first and the last difference is changed.
    """
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    start = _shared_start(a, b)
    end = _shared_start(a[start:][::-1], b[start:][::-1])
    inner_a, inner_b = a[start : len(a) - end], b[start : len(b) - end]
    if len(inner_a) * len(inner_b) > _MAX_PAIRS:
        middle = [(inner_a, inner_b, True)]
    else:
        matcher = SequenceMatcher(None, inner_a, inner_b, autojunk=False)
        middle = [
            (inner_a[a1:a2], inner_b[b1:b2], tag != "equal") for tag, a1, a2, b1, b2 in matcher.get_opcodes()
        ]
    parts = [(a[:start], b[:start], False), *middle, (a[len(a) - end :], b[len(b) - end :], False)]
    return (
        [Piece("".join(words), changed) for words, _, changed in parts if words],
        [Piece("".join(words), changed) for _, words, changed in parts if words],
    )


def _shared_start(a: Sequence[str], b: Sequence[str]) -> int:
    """Number of words at the start that both have."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((index for index, (x, y) in pairs if x != y), min(len(a), len(b)))
