"""Comparison of two candidate rows by their full texts."""

import re
from functools import cached_property

from .boilerplate import PASSAGE, Boilerplate
from .byte_windows import Numbers, jaccard, shingle_set
from .compared_text import SHORT_ANSWER, RowParts

#: Bytes up to which a text is a sentence or two, in which a number or a word may make the difference.
SHORT_TEXT = 300

_SHORTEST_TYPO = 4
_DIGITS = re.compile(rb"\d+")


class ComparableRow:
    """Row prepared for comparison with several others; derived values are computed once.

    Args:
        parts: the row.
        boilerplate: passages that many rows share.
    """

    def __init__(self, parts: RowParts, boilerplate: Boilerplate) -> None:
        self._key = parts.key
        self._texts = tuple(_ComparableText(text, boilerplate) for text in parts.texts)

    def similarity(self, other: "ComparableRow", threshold: float) -> float | None:
        """Jaccard similarity of the least similar texts; None if the rows are not near duplicates.

        Args:
            other: another row.
            threshold: the similarity from which texts are similar.
        """
        if self._key != other._key or len(self._texts) != len(other._texts):
            return None
        least = 1.0
        for part, (text, other_text) in enumerate(zip(self._texts, other._texts, strict=True)):
            similarity = text.similarity(other_text, threshold, short_answer=SHORT_ANSWER if part else 0)
            if similarity is None:
                return None
            least = min(least, similarity)
        return least


class _ComparableText:
    """One text of a row."""

    def __init__(self, text: bytes, boilerplate: Boilerplate) -> None:
        self.text = text
        self._boilerplate = boilerplate

    @cached_property
    def shingles(self) -> Numbers:
        return shingle_set(self.text)

    @cached_property
    def stripped(self) -> bytes:
        return self._boilerplate.strip([self.text])[0]

    @cached_property
    def stripped_shingles(self) -> Numbers:
        return shingle_set(self.stripped)

    def similarity(self, other: "_ComparableText", threshold: float, short_answer: int) -> float | None:
        if self.text == other.text:
            return 1.0
        shorter = min(len(self.text), len(other.text))
        if shorter <= short_answer or (shorter <= SHORT_TEXT and self._numbers() != other._numbers()):
            return None
        similarity = jaccard(self.shingles, other.shingles)
        return similarity if similarity >= threshold and self._is_variant(other, threshold) else None

    def _is_variant(self, other: "_ComparableText", threshold: float) -> bool:
        """True if a similar text is a variant of this one, not another text from the same template."""
        is_short = min(len(self.text), len(other.text)) <= SHORT_TEXT
        if is_short and self._boilerplate.is_template(self.text, other.text):
            return False
        if differs_by_typos(self.text.decode(), other.text.decode()):
            return True
        return (
            not self._is_boilerplate and jaccard(self.stripped_shingles, other.stripped_shingles) >= threshold
        )

    @property
    def _is_boilerplate(self) -> bool:
        """True if a text is mostly boilerplate."""
        return len(self.stripped) < min(PASSAGE, len(self.text))

    def _numbers(self) -> list[bytes]:
        return sorted(_DIGITS.findall(self.text))


def differs_by_typos(one: str, other: str) -> bool:
    """True if two texts are equal word by word, except for typos."""
    words, other_words = one.split(), other.split()
    return len(words) == len(other_words) and all(map(_is_same_word, words, other_words))


def _is_same_word(one: str, other: str) -> bool:
    """True if two words differ by one letter changed, added, removed or swapped with its neighbor."""
    if one == other:
        return True
    if min(len(one), len(other)) < _SHORTEST_TYPO or abs(len(one) - len(other)) > 1:
        return False
    begin = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if begin is None:
        return True
    rest, other_rest = one[begin:], other[begin:]
    return (
        rest[1:] == other_rest[1:]
        or rest[1:] == other_rest
        or rest == other_rest[1:]
        or (rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:])
    )
