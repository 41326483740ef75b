"""Rows with repetitions planted among them: made from a seed, so that what has to be found is known."""

import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from tunesmith_data.rows.table.record import Record

Row = dict[str, Any]

_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnpr" for vowel in "aeio"]
_VOCABULARY = 20_000


class Writer:
    """Writes sentences in a made-up language whose words are as unevenly frequent as those of a real one (Zipf)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        words = {self._word() for _ in range(_VOCABULARY)}
        self._words = sorted(words)
        self.random.shuffle(self._words)
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))

    def words(self, count: int) -> list[str]:
        """So many words."""
        return self.random.choices(self._words, cum_weights=self._weights, k=count)

    def text(self, least: int, most: int) -> str:
        """Sentences of between so many words altogether."""
        words = self.words(self.random.randint(least, most))
        sentences, begin = [], 0
        while begin < len(words):
            end = begin + self.random.randint(6, 16)
            sentences.append(" ".join(words[begin:end]).capitalize() + ".")
            begin = end
        return " ".join(sentences)

    def row(self) -> Row:
        """A question and its answer, as people ask and answer."""
        return {"prompt": self.text(12, 60), "completion": self.text(20, 120)}

    def _word(self) -> str:
        return "".join(self.random.choices(_SYLLABLES, k=self.random.choice((1, 2, 2, 3, 3, 4, 5))))


def typo(writer: Writer, text: str) -> str:
    """Two letters changed."""
    letters = list(text)
    for place in writer.random.sample([place for place, letter in enumerate(text) if letter.isalpha()], 2):
        letters[place] = writer.random.choice("xqzvw")
    return "".join(letters)


def swap(writer: Writer, text: str) -> str:
    """Two neighboring words in the other order."""
    words = text.split()
    place = writer.random.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def case(writer: Writer, text: str) -> str:
    """Another case and other punctuation."""
    return writer.random.choice([str.upper, str.lower, str.title])(text).replace(
        ".", writer.random.choice("!;?")
    )


def space(writer: Writer, text: str) -> str:
    """Other white space."""
    return "  " + text.replace(" ", writer.random.choice(["\n", "  ", "\t"])) + "\n"


def lengthen(writer: Writer, text: str) -> str:
    """A few words more at the end."""
    return f"{text} {' '.join(writer.words(max(1, len(text.split()) // 12)))}."


def replace(writer: Writer, text: str) -> str:
    """One word in the place of another."""
    words = text.split()
    words[writer.random.randrange(len(words))] = writer.words(1)[0]
    return " ".join(words)


Edit = Callable[[Writer, str], str]

#: What makes a copy differ without making it another row.
EDITS: tuple[Edit, ...] = (typo, swap, case, space, lengthen, replace)


def edited(writer: Writer, row: Row, edits: Sequence[Edit] = EDITS) -> Row:
    """A copy with an edit in its question, its answer, or both."""
    members = writer.random.choice([("prompt",), ("completion",), ("prompt", "completion")])
    return row | {member: writer.random.choice(edits)(writer, row[member]) for member in members}


def records_of(rows: Sequence[Row], file: str = "train.jsonl") -> list[Record]:
    """Rows as records of one file, a row a line."""
    return [Record(index, file, index + 1, row) for index, row in enumerate(rows)]
