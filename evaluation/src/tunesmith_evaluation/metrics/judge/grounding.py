"""Scorers of answers from retrieved passages: faithfulness and context recall, by a judge.

Claims of a text are listed and checked against the passages, as in RAGAS (Es et al. 2023, arXiv:2309.15217).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.scorer import Score, ScoredItem, Scorer, combine_repeats

from .client import Judge
from .points import is_judged, score_missing, score_unjudged
from .questions import ask_claims, read_claims


class _Grounded(Scorer):
    """Share of a text's claims that passages support.

    A text without claims has no score: an answer that says nothing must not count as faithful.

    Args:
        judge: the judge.
        family_warning: said in the summary if not empty.
    """

    needs_expected: ClassVar[bool]

    def __init__(self, judge: Judge, family_warning: str = "") -> None:
        self._judge = judge
        self._family_warning = family_warning
        self.version = f"1 {judge.name}"

    def _check(self, expected: Expected) -> str | None:
        if not any(passage.strip() for passage in expected.passages):
            row = "a row" if expected.row is None else f"row {expected.row}"
            return f"{row} has no passages: set the side's contextColumn to the column of what was retrieved"
        if self.needs_expected and not expected.text.strip():
            return f"{expected.subject} is empty: write what the model should answer"
        return None

    def text_of(self, expected: Expected, answer: Answer) -> str:
        """Text whose claims are checked."""
        raise NotImplementedError

    def score_all(self, items: Sequence[ScoredItem]) -> list[Score]:
        """Scores of all items of one side; the judge is asked about all together."""
        asked = [(item, answer) for item in items for answer in item.answers if self._is_asked(answer)]
        questions = [
            ask_claims(item.question, self.text_of(item.expected, answer), item.expected.passages)
            for item, answer in asked
        ]
        verdicts = iter(self._judge.ask_all(questions, read_claims))
        return [
            combine_repeats(
                [
                    _score_claims(next(verdicts)) if self._is_asked(answer) else score_unjudged(answer)
                    for answer in item.answers
                ]
            )
            for item in items
        ]

    def summarize(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Usage of the judge, and warnings."""
        warnings = [self._family_warning] if self._family_warning else []
        return {"judge": self._judge.name, "usage": self._judge.usage(), "warnings": warnings}

    def _is_asked(self, answer: Answer) -> bool:
        return self.needs_expected or is_judged(answer)

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self.score_all([ScoredItem(question, expected, (answer,))])[0]


class Faithfulness(_Grounded):
    """Share of the answer's claims that the passages support."""

    name = "Faithfulness"
    needs_expected = False

    def text_of(self, expected: Expected, answer: Answer) -> str:
        """The answer."""
        return answer.text


class ContextRecall(_Grounded):
    """Share of the expected answer's claims that the passages support: it measures retrieval, not the answer."""

    name = "ContextRecall"
    needs_expected = True

    def text_of(self, expected: Expected, answer: Answer) -> str:
        """The expected answer."""
        return expected.text


def _score_claims(supported: Any) -> Score:
    if (missing := score_missing(supported)) is not None:
        return missing
    if not supported:
        return Score(None, {"reason": "the text makes no claims", "claims": 0})
    return Score(sum(supported) / len(supported), {"claims": len(supported), "supported": sum(supported)})
