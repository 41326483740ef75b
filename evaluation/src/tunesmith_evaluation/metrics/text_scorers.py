"""Scorers of an answer's text: equality, containment, shared words, a pattern."""

from collections import Counter

from tunesmith_data.rewards.rule_rewards import compile_pattern
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Expected
from .scorer import Score, TextScorer, binary
from .words import fold, squad_words


class ExactMatch(TextScorer):
    """1 if answer and expected answer are the same text, up to whitespace and Unicode's forms of one character.

    Args:
        ignore_case, ignore_punctuation: further differences that don't count.
    """

    name = "ExactMatch"
    kind = ScoreKind.BINARY
    version = "2"

    def __init__(self, *, ignore_case: bool = False, ignore_punctuation: bool = False) -> None:
        self._ignore_case = ignore_case
        self._ignore_punctuation = ignore_punctuation

    def _check(self, expected: Expected) -> str | None:
        if expected.text.strip() and not self.fold(expected.text):
            return f"{expected.subject} has nothing but punctuation: compare with punctuation"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for the same text."""
        return binary(self.fold(text) == self.fold(expected.text))

    def fold(self, text: str) -> str:
        """The text without differences that don't count."""
        return fold(text, ignore_case=self._ignore_case, ignore_punctuation=self._ignore_punctuation)


class Contains(ExactMatch):
    """1 if the answer contains the expected text as whole words; settings as ``ExactMatch``.

    A long answer has more chances than a short one: prefer a metric that sees all of the answer for gates.
    """

    name = "Contains"

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 if the expected text is in it."""
        wanted, found = self.fold(expected.text), self.fold(text)
        position = found.find(wanted)
        while position >= 0:
            if _stands_alone(found, position, position + len(wanted)):
                return binary(True)
            position = found.find(wanted, position + 1)
        return binary(False)


class TokenF1(TextScorer):
    """F1 of the words that answer and expected answer share, as in SQuAD (arXiv:1606.05250, section 6.1)."""

    name = "TokenF1"

    def _check(self, expected: Expected) -> str | None:
        if expected.text.strip() and not squad_words(expected.text):
            return f"{expected.subject} has no words but articles and punctuation: use ExactMatch"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """2 · shared / (words of the answer + words expected)."""
        found, wanted = squad_words(text), squad_words(expected.text)
        shared = sum((Counter(found) & Counter(wanted)).values())
        return Score(2 * shared / (len(found) + len(wanted)) if shared else 0.0)


class Regex(TextScorer):
    """1 if a pattern in RE2's syntax, which takes linear time, is found in the answer.

    Args:
        pattern: the pattern; write ``^`` and ``$`` for the whole answer.

    Raises:
        UserError: RE2 can't take the pattern.
    """

    name = "Regex"
    kind = ScoreKind.BINARY
    needs_text = False

    def __init__(self, pattern: str) -> None:
        self._matches = compile_pattern(pattern, "metric Regex", "MetricPattern")

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for a match; saying nothing is none, whatever the pattern allows."""
        return binary(bool(text.strip()) and self._matches(text))


def _stands_alone(text: str, begin: int, end: int) -> bool:
    """True if no word goes on at either end."""

    def goes_on(left: int, right: int) -> bool:
        return left >= 0 and right < len(text) and text[left].isalnum() and text[right].isalnum()

    return not goes_on(begin - 1, begin) and not goes_on(end - 1, end)
