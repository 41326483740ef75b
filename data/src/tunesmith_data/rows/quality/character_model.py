"""Character n-gram model: bits per character of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Counts, Digests, Scores

#: Characters of the longest context.
_ORDER = 5
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
#: Start marker of a text; no character has this number.
_START = np.uint64(0x110000)


@dataclass(frozen=True, slots=True)
class _Contexts:
    """Counts of characters after contexts of one length, by sorted digests."""

    contexts: Digests
    totals: Counts
    continuations: Counts
    grams: Digests
    counts: Counts


@dataclass(frozen=True, slots=True)
class CharacterModel:
    """An interpolated n-gram model of characters (Witten and Bell 1991, doi:10.1109/18.87000)."""

    levels: tuple[_Contexts, ...]
    alphabet: int

    def bits_per_character(self, text: Digests) -> float:
        """Bits per character of a text; a new context counts as the next shorter one, a new character as any other."""
        probability: Scores = np.full(len(text), 1 / self.alphabet)
        for length, level in enumerate(self.levels):
            contexts, grams = _digests(text, length)
            total = _look_up(level.contexts, level.totals, contexts)
            continuations = _look_up(level.contexts, level.continuations, contexts)
            count = _look_up(level.grams, level.counts, grams)
            seen = total > 0
            mixed = (count + continuations * probability)[seen] / (total + continuations)[seen]
            probability[seen] = mixed
        spoken = text != _START
        return float(-np.log2(probability[spoken]).mean())


def encode(texts: Sequence[str]) -> Digests:
    """Texts as one row of numbers, each text with its start."""
    codes = [np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64) for text in texts]
    return np.concatenate([part for text_codes in codes for part in (np.array([_START]), text_codes)])


def train_model(text: Digests, alphabet: int) -> CharacterModel:
    """Train the model on a text.

    Args:
        text: from ``encode``.
        alphabet: number of distinct characters; all are equally likely before the first text.
    """
    return CharacterModel(tuple(_count(text, length) for length in range(_ORDER + 1)), alphabet)


def _count(text: Digests, length: int) -> _Contexts:
    contexts, grams = _digests(text, length)
    unique_grams, first, counts = np.unique(grams, return_index=True, return_counts=True)
    unique_contexts, by_gram, continuations = np.unique(
        contexts[first], return_inverse=True, return_counts=True
    )
    totals = np.bincount(by_gram, weights=counts).astype(np.int64)
    return _Contexts(unique_contexts, totals, continuations, unique_grams, counts)


def _digests(text: Digests, length: int) -> tuple[Digests, Digests]:
    """Digests of the context before each character, and of context and character."""
    context = np.full(len(text), np.uint64(length))
    for back in range(length, 0, -1):
        before = np.concatenate([np.full(back, _START), text[:-back]])[: len(text)]
        context = _mixed(context, before)
    return context, _mixed(context, text)


def _mixed(digest: Digests, codes: Digests) -> Digests:
    mixed: Digests = (digest ^ codes) * _MULTIPLIER
    return mixed ^ (mixed >> np.uint64(29))


def _look_up(keys: Digests, values: Counts, wanted: Digests) -> Counts:
    """Values of keys in ascending order; 0 for missing keys."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
