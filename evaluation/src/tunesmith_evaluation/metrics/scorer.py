"""Scorers: metrics with their settings, applied to answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Expected, JSONValue, Question

Floats = NDArray[np.float64]

#: Names of keys or tools that the detail of a score shows.
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Score:
    """Score of one answer.

    Attributes:
        value: the score; None if there is none, with the reason in ``detail["reason"]``.
        detail: JSON members that explain it, for the report.
    """

    value: float | None
    detail: Mapping[str, JSONValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """Question, expected answer, and the answers of one side, one for each repeat."""

    question: Question
    expected: Expected
    answers: tuple[Answer, ...]


class Scorer(ABC):
    """Metric with its settings.

    Subclasses implement ``_score``, which sees complete answers only, and ``_check``.

    Attributes:
        name: name of the metric.
        kind: kind of its scores.
        higher_is_better: False if lower scores are better.
        version: changes whenever the same answers could get other scores; it is part of the policy's digest.
        needs_likelihood: it scores ``Answer.likelihood``, not the answer's text.
    """

    name: ClassVar[str]
    kind: ScoreKind = ScoreKind.UNIT_INTERVAL
    higher_is_better: ClassVar[bool] = True
    version: str = "1"
    needs_likelihood: ClassVar[bool] = False
    #: It judges what an answer says; False for measurements of it and for the likelihood of a given text.
    reads_answers: ClassVar[bool] = True
    #: It compares calls of tools; other scorers refuse items that expect one.
    scores_calls: ClassVar[bool] = False

    def check(self, expected: Expected) -> str | None:
        """Reason why an item can't be scored, with what to write instead; None if it can."""
        if expected.tool_calls and not self.scores_calls:
            return f"{expected.subject} is a call of a tool, which ToolCall alone can compare"
        return self._check(expected)

    def check_suite(self, items: Sequence[Expected]) -> str | None:
        """Reason why the items together can't be scored, with what to write instead; None if they can."""
        return None

    def score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        """Score of an answer; 0 for one that never ended its thinking."""
        if not answer.complete:
            return Score(0.0, {"incomplete": True})
        return self._score(question, expected, answer)

    def score_item(self, item: ScoredItem) -> Score:
        """Score of an item, over its repeats."""
        return combine_repeats([self.score(item.question, item.expected, answer) for answer in item.answers])

    def score_all(self, items: Sequence[ScoredItem]) -> list[Score]:
        """Scores of all items of one side, in their order."""
        return [self.score_item(item) for item in items]

    def score_sides(self, sides: Sequence[Sequence[ScoredItem]]) -> list[list[Score]]:
        """Scores of all items of all sides: the candidate, the baseline, then references."""
        return [self.score_all(items) for items in sides]

    def aggregate(self, scores: Sequence[Score]) -> float | None:
        """Value of all items together: the mean of their scores; None without any."""
        values = [score.value for score in scores if score.value is not None]
        return sum(values) / len(values) if values else None

    def summarize(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Further JSON members about all items of one side, for the report."""
        return {}

    def _check(self, expected: Expected) -> str | None:
        return None

    @abstractmethod
    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score: ...


class TextScorer(Scorer):
    """Scorer of an answer's text beside the expected text.

    An answer that calls a tool, where text is expected, scores 0: the user would get no answer.
    """

    #: It compares with the expected text, which must not be empty.
    needs_text: bool = True

    def check(self, expected: Expected) -> str | None:
        """Reason why an item can't be scored."""
        problem = super().check(expected)
        if problem is None and self.needs_text and not expected.text.strip():
            return f"{expected.subject} is empty: write what the model should answer"
        return problem

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        if answer.calls_tools:
            return Score(0.0, {"calledTool": True})
        return self.score_text(expected, answer.text)

    @abstractmethod
    def score_text(self, expected: Expected, text: str) -> Score:
        """Score of an answer's text."""


class CorpusScorer(Scorer):
    """Scorer whose value of all items together is a function of sums over them."""

    kind = ScoreKind.CORPUS
    #: Largest value of the statistic, whose least one is 0; None if it has no bound.
    upper: float | None = None
    #: How far one more group of items can move the statistic, down and up, from the sums of each group.
    swings: Callable[[Floats], tuple[Floats, Floats]] | None = None

    @abstractmethod
    def corpus_terms(self, sides: Sequence[Sequence[Score]]) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Terms of each item in the sums, and the function of the sums.

        Args:
            sides: scores of all sides, on the same items.

        Returns:
            Terms, shape (sides, items, k), 0 where there is no score; a function of sums of shape (..., k).
        """

    def aggregate(self, scores: Sequence[Score]) -> float | None:
        """Value of all items together; None without any score."""
        known = [score for score in scores if score.value is not None]
        if not known:
            return None
        terms, statistic = self.corpus_terms([known])
        return float(statistic(terms[0].sum(axis=0)))


def details_of(score: Score) -> Sequence[Mapping[str, JSONValue]]:
    """Details of each repeat of a score; none where it has no value."""
    if score.value is None:
        return []
    repeats: Sequence[Mapping[str, JSONValue]] = score.detail.get("repeats", [score.detail])
    return repeats


def binary(value: bool, **detail: JSONValue) -> Score:
    """Score 1 or 0."""
    return Score(float(value), detail)


def combine_repeats(scores: Sequence[Score]) -> Score:
    """Mean score of the repeats of an item; none if one of them has none."""
    if len(scores) == 1:
        return scores[0]
    details = {"repeats": [{"value": score.value, **score.detail} for score in scores]}
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores) or not scores:
        reasons = [score.detail.get("reason") for score in scores if score.value is None]
        return Score(None, {"reason": next(iter(reasons), "no answer"), **details})
    return Score(sum(values) / len(values), details)
