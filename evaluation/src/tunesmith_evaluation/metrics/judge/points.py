"""Scorer by a judge's points for each answer."""

from collections.abc import Sequence
from typing import Any

from tunesmith_data.labels.agreement import cohen_kappa
from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.scorer import Score, ScoredItem, Scorer, combine_repeats

from .client import BEYOND_BUDGET, Judge
from .questions import BEST_POINTS, CORRECTNESS, WORST_POINTS, ask_points, read_points

#: Below this agreement with people, a judge is not trusted (Landis and Koch 1977: "substantial" from 0.61 on).
TRUSTED_KAPPA = 0.6
_UNREADABLE = "the judge gives no verdict that can be read"
_UNASKED = "the judge's budget does not cover the question"


class JudgePoints(Scorer):
    """Points from 1 to 5 that a judge gives, as (points - 1) / 4.

    Empty answers, and calls of tools where text is expected, score 0 without the judge.

    Args:
        judge: the judge.
        rubric: criteria in words; None: correctness beside the expected answer.
        family_warning: said in the summary if not empty.
    """

    name = "Judge"

    def __init__(self, judge: Judge, rubric: str | None = None, family_warning: str = "") -> None:
        self._judge = judge
        self._rubric = rubric or CORRECTNESS
        self._needs_expected = rubric is None
        self._family_warning = family_warning
        self.version = f"1 points {judge.name}"

    def _check(self, expected: Expected) -> str | None:
        if self._needs_expected and not expected.text.strip():
            return f"{expected.subject} is empty: write it, or a rubric that does without it"
        label = expected.human_label
        if label is not None and read_label(label) is None:
            row = "a row" if expected.row is None else f"row {expected.row}"
            return f"{row} has {label[:40]!r} as points by people: write {WORST_POINTS} to {BEST_POINTS}"
        return None

    def score_all(self, items: Sequence[ScoredItem]) -> list[Score]:
        """Scores of all items of one side; the judge is asked about all together."""
        asked = [(item, answer) for item in items for answer in item.answers if is_judged(answer)]
        questions = [
            ask_points(self._rubric, item.question, item.expected, answer.text) for item, answer in asked
        ]
        verdicts = iter(self._judge.ask_all(questions, read_points))
        return [
            combine_repeats(
                [
                    _score_points(next(verdicts)) if is_judged(answer) else score_unjudged(answer)
                    for answer in item.answers
                ]
            )
            for item in items
        ]

    def score_sides(self, sides: Sequence[Sequence[ScoredItem]]) -> list[list[Score]]:
        """Scores of all sides. People's points belong to the baseline's answers."""
        scores = super().score_sides(sides)
        if len(sides) > 1:
            scores[1] = [_with_label(score, item) for score, item in zip(scores[1], sides[1], strict=True)]
        return scores

    def summarize(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Usage of the judge, its agreement with people where items have their points, and warnings."""
        agreement = _measure_agreement(scores)
        warnings = [self._family_warning, agreement.pop("warning", ""), _warn_of_constant(scores)]
        return {
            "judge": self._judge.name,
            "usage": self._judge.usage(),
            "agreement": agreement,
            "warnings": [warning for warning in warnings if warning],
        }

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self.score_all([ScoredItem(question, expected, (answer,))])[0]


def is_judged(answer: Answer) -> bool:
    """True if an answer has text that a judge can look at."""
    return answer.complete and bool(answer.text.strip()) and not answer.calls_tools


def score_unjudged(answer: Answer) -> Score:
    """Score of an answer without text for a judge."""
    return Score(0.0, {"incomplete": True} if not answer.complete else {"empty": True})


def read_label(label: str) -> int | None:
    """Points that people gave; None if they are out of the scale."""
    try:
        points = float(label)
    except ValueError:
        return None
    return int(points) if points in range(WORST_POINTS, BEST_POINTS + 1) else None


def score_missing(*verdicts: Any) -> Score | None:
    """Score with the reason where one of a judge's verdicts is missing; None where it gave all."""
    if any(verdict is BEYOND_BUDGET for verdict in verdicts):
        return Score(None, {"reason": _UNASKED})
    if any(verdict is None for verdict in verdicts):
        return Score(None, {"reason": _UNREADABLE})
    return None


def _score_points(points: Any) -> Score:
    if (missing := score_missing(points)) is not None:
        return missing
    return Score((points - WORST_POINTS) / (BEST_POINTS - WORST_POINTS), {"points": points})


def _with_label(score: Score, item: ScoredItem) -> Score:
    label = read_label(item.expected.human_label) if item.expected.human_label is not None else None
    return score if label is None else Score(score.value, {**score.detail, "humanPoints": label})


def _measure_agreement(scores: Sequence[Score]) -> dict[str, Any]:
    """Cohen's kappa with quadratic weights between the judge's points and people's; empty without these."""
    pairs = [
        (str(score.detail["points"]), str(score.detail["humanPoints"]))
        for score in scores
        if "points" in score.detail and "humanPoints" in score.detail
    ]
    if not pairs:
        return {}
    scale = [str(points) for points in range(WORST_POINTS, BEST_POINTS + 1)]
    kappa = cohen_kappa(pairs, scale, "ordinal")
    agreement: dict[str, Any] = {
        "items": len(pairs),
        "equal": sum(one == other for one, other in pairs) / len(pairs),
        "kappa": kappa,
    }
    if kappa is None:
        agreement["warning"] = "judge and people gave one and the same number of points throughout"
    elif kappa < TRUSTED_KAPPA:
        agreement["warning"] = (
            f"the judge agrees too little with people (kappa {kappa:.2f} on {len(pairs)} items, below "
            f"{TRUSTED_KAPPA}): write a clearer rubric, or choose a stronger judge"
        )
    return agreement


def _warn_of_constant(scores: Sequence[Score]) -> str:
    points = [score.detail["points"] for score in scores if "points" in score.detail]
    if len(points) < 2 or len(set(points)) > 1 or points[0] == BEST_POINTS:
        return ""
    return f"the judge gave each of {len(points)} answers {points[0]} points: it does not tell them apart"
