"""Scorers of measurements: likelihood of the expected answer, time, tokens."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from tunesmith_evaluation.statistics.corpus import mean, perplexity
from tunesmith_evaluation.statistics.jackknife import FAR
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Expected, Question
from .scorer import CorpusScorer, Floats, Score, Scorer, details_of

#: Log-probability that replaces a lower one, for each token: an expected answer must not cost infinitely much.
LOWEST_LOG_PROBABILITY = -100.0
_LOG_2 = math.log(2)


class Perplexity(CorpusScorer):
    """Perplexity of the expected answers: exp(-sum of log-probabilities / tokens) over all items together.

    Models with different tokenizers can't be compared by it: use ``BitsPerByte``.
    """

    name = "Perplexity"
    higher_is_better = False
    needs_likelihood = True
    reads_answers = False
    scores_calls = True

    def score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        """Score of the expected answer's likelihood, whatever the answer's text is."""
        likelihood = answer.likelihood
        if likelihood is None or not likelihood.is_usable:
            return Score(None, {"reason": "the side gives no log-probabilities of the expected answer"})
        nats = -max(likelihood.log_probability, LOWEST_LOG_PROBABILITY * likelihood.tokens)
        units = self.units(expected, answer)
        if not units:
            return Score(None, {"reason": "the expected answer is empty"})
        return Score(float(self.statistic(np.array([nats, units]))), {"nats": nats, "units": units})

    def units(self, expected: Expected, answer: Answer) -> int:
        """Units by which the log-probability is divided: tokens."""
        return answer.likelihood.tokens if answer.likelihood else 0

    def corpus_terms(self, sides: Sequence[Sequence[Score]]) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Nats and units of each item."""
        terms = [[_sum_terms(score) for score in scores] for scores in sides]
        return np.array(terms, np.float64).reshape(len(sides), -1, 2), self.statistic

    def statistic(self, sums: Floats) -> Floats:
        """Perplexity from sums of nats and units."""
        return perplexity(sums)

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self.score(question, expected, answer)


class BitsPerByte(Perplexity):
    """Bits for each byte (UTF-8) of the expected answers, over all items together; comparable across tokenizers.

    Calls of tools have no text of their own, so items that expect one can't be scored.
    """

    name = "BitsPerByte"
    scores_calls = False

    def _check(self, expected: Expected) -> str | None:
        return None if expected.text else f"{expected.subject} is empty: write what the model should answer"

    def units(self, expected: Expected, answer: Answer) -> int:
        """Bytes of the expected text."""
        return len(expected.text.encode())

    def statistic(self, sums: Floats) -> Floats:
        """Bits for a byte from sums of nats and bytes."""
        return mean(sums) / _LOG_2


class _Measured(Scorer):
    """Measurement of any answer, right or wrong, complete or not.

    An empty answer has none: a model that says nothing is neither fast nor brief.
    """

    kind = ScoreKind.UNBOUNDED
    version = "2"
    higher_is_better = False
    reads_answers = False
    scores_calls = True

    def score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        """The measured value; incomplete answers took their time, too."""
        if answer.complete and not (answer.text.strip() or answer.calls_tools):
            return Score(None, {"reason": "the answer is empty"})
        score = self._score(question, expected, answer)
        if score.value is not None and not 0 <= score.value <= FAR:
            return Score(None, {"reason": f"{score.value:g} is no measurement: 0 to {FAR:g} is expected"})
        return score


class Latency(_Measured):
    """Seconds from the request to the whole answer."""

    name = "Latency"

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        if answer.seconds is None:
            return Score(None, {"reason": "the side reports no time"})
        return Score(answer.seconds)


class Tokens(_Measured):
    """Tokens of an answer, thinking included."""

    name = "Tokens"

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        if answer.answer_tokens is None:
            return Score(None, {"reason": "the side reports no tokens"})
        thinking = answer.thinking_tokens or 0
        return Score(float(answer.answer_tokens + thinking), {"thinking": thinking})


def _sum_terms(score: Score) -> tuple[float, float]:
    """Nats and units of one item, over its repeats."""
    details = details_of(score)
    return sum(detail["nats"] for detail in details), sum(detail["units"] for detail in details)
