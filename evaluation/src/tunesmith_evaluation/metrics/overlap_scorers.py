"""Scorers of the overlap of two texts: ROUGE-L, BLEU, chrF."""

from functools import cached_property
from typing import Any

from .answers import Expected
from .scorer import Score, TextScorer
from .words import is_unspaced, words


class RougeL(TextScorer):
    """F1 of the longest common subsequence of words (Lin 2004, "ROUGE: A Package for Automatic Evaluation").

    Equal to the package rouge-score without stemming on English text; words of all scripts count.
    """

    name = "ROUGEL"

    def _check(self, expected: Expected) -> str | None:
        if expected.text.strip() and not words(expected.text):
            return f"{expected.subject} has no words: use ExactMatch"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """2 · length / (words of the answer + words expected)."""
        found, wanted = words(text), words(expected.text)
        length = common_subsequence_length(found, wanted)
        return Score(2 * length / (len(found) + len(wanted)) if length else 0.0)


class SacreBleu(TextScorer):
    """Common part of the scorers of sacrebleu (arXiv:1804.08771), for single answers, divided by 100."""

    def score_text(self, expected: Expected, text: str) -> Score:
        """Score of one sentence; in [0, 1] up to rounding, which is cut."""
        if not text.strip():
            return Score(0.0)
        value = self.metric(expected).sentence_score(text, [expected.text]).score / 100
        return Score(min(1.0, max(0.0, value)))

    def metric(self, expected: Expected) -> Any:
        """Metric of sacrebleu for an expected answer."""
        raise NotImplementedError


class Bleu(SacreBleu):
    """BLEU of one answer with effective order, so that short answers have a score.

    sacrebleu's tokenizer is ``13a``, or ``char`` where the expected answer is in a script without blanks.
    """

    name = "BLEU"

    @cached_property
    def _metrics(self) -> dict[str, Any]:
        from sacrebleu.metrics.bleu import BLEU  # takes half a second to import

        return {name: BLEU(effective_order=True, tokenize=name) for name in ("13a", "char")}

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """sacrebleu's signature."""
        return f"1 {_signature(self._metrics['13a'])}, char without blanks"

    def metric(self, expected: Expected) -> Any:
        """Metric with the tokenizer for the script."""
        return self._metrics["char" if is_unspaced(expected.text) else "13a"]


class Chrf(SacreBleu):
    """ChrF2 of one answer: F-score of character n-grams (Popović 2015)."""

    name = "CHRF"

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF  # takes half a second to import

        return CHRF()

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """sacrebleu's signature."""
        return f"1 {_signature(self._metric)}"

    def metric(self, expected: Expected) -> Any:
        """The one metric."""
        return self._metric


def common_subsequence_length(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, in O(n · m / 64) by bit vectors.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited", its second algorithm.
    """
    masks: dict[str, int] = {}
    for index, word in enumerate(left):
        masks[word] = masks.get(word, 0) | 1 << index
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        matches = row & masks.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(left) - row.bit_count()


def _signature(metric: Any) -> str:
    metric.sentence_score("a", ["a"])  # it knows its signature only then
    return str(metric.get_signature())
