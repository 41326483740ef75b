"""Whether two rows say the same: decided on their texts, after signatures have brought them together."""

import re
from functools import cached_property

from .boilerplate import PASSAGE, Boilerplate
from .byte_windows import Numbers, jaccard, shingle_set
from .compared_text import SHORT_ANSWER, Parts

#: Bytes up to which a text is a sentence or two, in which a number or a word may make the difference.
SHORT_TEXT = 300

_SHORTEST_SLIP = 4
_DIGITS = re.compile(rb"\d+")


class Compared:
    """A row that is compared with several others: what is needed of it is computed once.

    Args:
        parts: the row.
        boilerplate: what many rows say.
    """

    def __init__(self, parts: Parts, boilerplate: Boilerplate) -> None:
        self._key = parts.key
        self._texts = tuple(_Text(text, boilerplate) for text in parts.texts)

    def similarity(self, other: "Compared", threshold: float) -> float | None:
        """The Jaccard similarity of the parts that are least alike; None where the rows are not nearly the same.

        Args:
            other: another row.
            threshold: the similarity from which texts are alike.
        """
        if self._key != other._key or len(self._texts) != len(other._texts):
            return None
        least = 1.0
        for part, (mine, theirs) in enumerate(zip(self._texts, other._texts, strict=True)):
            similarity = mine.similarity(theirs, threshold, short_answer=SHORT_ANSWER if part else 0)
            if similarity is None:
                return None
            least = min(least, similarity)
        return least


class _Text:
    """One part of a row."""

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

    def similarity(self, other: "_Text", threshold: float, short_answer: int) -> float | None:
        if self.text == other.text:
            return 1.0
        shorter = min(len(self.text), len(other.text))
        if shorter <= short_answer or (shorter <= SHORT_TEXT and self._numbers() != other._numbers()):
            return None
        similarity = jaccard(self.shingles, other.shingles)
        return similarity if similarity >= threshold and self._is_variant(other, threshold) else None

    def _is_variant(self, other: "_Text", threshold: float) -> bool:
        """Whether an alike text is this one once more, not another one from the same template."""
        is_short = min(len(self.text), len(other.text)) <= SHORT_TEXT
        if is_short and self._boilerplate.is_template(self.text, other.text):
            return False
        if differs_by_slips(self.text.decode(), other.text.decode()):
            return True
        return (
            not self._is_boilerplate and jaccard(self.stripped_shingles, other.stripped_shingles) >= threshold
        )

    @property
    def _is_boilerplate(self) -> bool:
        """Whether too little is left beside boilerplate to tell texts apart."""
        return len(self.stripped) < min(PASSAGE, len(self.text))

    def _numbers(self) -> list[bytes]:
        return sorted(_DIGITS.findall(self.text))


def differs_by_slips(one: str, other: str) -> bool:
    """Whether two texts are the same word by word, but for slips of the pen."""
    mine, theirs = one.split(), other.split()
    return len(mine) == len(theirs) and all(map(_is_same_word, mine, theirs))


def _is_same_word(one: str, other: str) -> bool:
    """Whether one letter is changed, added or left out, or two neighbours have changed places."""
    if one == other:
        return True
    if min(len(one), len(other)) < _SHORTEST_SLIP or abs(len(one) - len(other)) > 1:
        return False
    begin = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if begin is None:
        return True
    mine, theirs = one[begin:], other[begin:]
    return mine[1:] == theirs[1:] or mine[1:] == theirs or mine == theirs[1:] or _is_swap(mine, theirs)


def _is_swap(one: str, other: str) -> bool:
    return one[:2] == other[1::-1] and one[2:] == other[2:]
