"""Words of a text, for scorers that compare words."""

import re
import string
import unicodedata
from functools import lru_cache

#: Scripts that are written without blanks: each character counts as a word. Han, kana, Thai, Lao, Khmer, Burmese.
_UNSPACED = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana and marks of repetition
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
_ARTICLES = frozenset({"a", "an", "the"})


def normalize_whitespace(text: str) -> str:
    """The text with whitespace trimmed and each run of it replaced by one blank."""
    return " ".join(text.split())


def is_unspaced(text: str) -> bool:
    """True if the text has characters of a script without blanks."""
    return _UNSPACED_CHARACTER.search(text) is not None


def fold(text: str, *, ignore_case: bool = False, ignore_punctuation: bool = False) -> str:
    """The text in Unicode's composed form (NFC), with whitespace normalized, and folded as asked."""
    text = unicodedata.normalize("NFC", text)
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    if ignore_punctuation:
        text = "".join(character for character in text if not _is_punctuation(character))
    return normalize_whitespace(text)


def words(text: str) -> list[str]:
    """Words in lower case: runs of letters, digits and underscores; single characters in scripts without blanks."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def squad_words(text: str) -> list[str]:
    """Words as SQuAD's evaluation takes them: lower case, without punctuation and English articles.

    Unlike there, all of Unicode's punctuation counts, and characters of scripts without blanks are words of their own,
    as in MLQA (arXiv:1910.07475).
    """
    folded = fold(text, ignore_case=True, ignore_punctuation=True)
    spaced = _UNSPACED_CHARACTER.sub(r" \g<0> ", folded)
    return [word for word in spaced.split() if word not in _ARTICLES]


@lru_cache(maxsize=4096)
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
