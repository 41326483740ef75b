"""Scorer by a judge's comparison of two sides' answers."""

from collections.abc import Sequence
from typing import Any

from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.scorer import Score, ScoredItem, Scorer
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .client import Judge
from .length_control import control_lengths
from .points import is_judged, score_missing
from .questions import CORRECTNESS, FIRST, SECOND, TIE, ask_better, read_better

#: Share of contradictory verdicts beyond which nothing is scored: a judge that tosses a coin reaches a half.
MAX_CONTRADICTIONS = 0.4
#: Number of pairs from which that share is looked at.
_ENOUGH_PAIRS = 10
_WIN, _LOSS, _DRAW = 1.0, 0.0, 0.5


class JudgePairs(Scorer):
    """Verdicts of a judge on pairs of answers: 1 for a win over the baseline, 0.5 for a tie, 0 for a loss.

    Each pair is judged in both orders, and only verdicts that agree count: a pair with contradictory ones is a tie
    (Zheng et al. 2023, arXiv:2306.05685). A judge that contradicts itself too often, or never prefers an answer, gives
    no scores at all, since ties would hide losses. Scores are controlled for length (``length_control``), so they may
    leave [0, 1] a little; their mean is the win rate at equal lengths. The baseline has 1 minus the candidate's score.

    Args:
        judge: the judge.
        rubric: criteria in words; None: correctness beside the expected answer.
        family_warning: said in the summary if not empty.
    """

    name = "Judge"
    kind = ScoreKind.UNBOUNDED

    def __init__(self, judge: Judge, rubric: str | None = None, family_warning: str = "") -> None:
        self._judge = judge
        self._rubric = rubric or CORRECTNESS
        self._needs_expected = rubric is None
        self._family_warning = family_warning
        self.version = f"2 pairs {judge.name}"

    def _check(self, expected: Expected) -> str | None:
        if self._needs_expected and not expected.text.strip():
            return f"{expected.subject} is empty: write it, or a rubric that does without it"
        return None

    def score_sides(self, sides: Sequence[Sequence[ScoredItem]]) -> list[list[Score]]:
        """Scores of candidate, baseline and references; the first repeat of each item counts."""
        candidate, baseline, *references = sides
        scores = self._compare(candidate, baseline)
        opposite = [
            Score(None if score.value is None else 1 - score.value, _opposite(score.detail))
            for score in scores
        ]
        return [scores, opposite, *(self._compare(items, baseline) for items in references)]

    def summarize(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Wins, ties, losses and contradictions, the influence of length, usage of the judge, and warnings."""
        verdicts = [score.detail["verdict"] for score in scores if "verdict" in score.detail]
        counts = {name: verdicts.count(name) for name in ("win", "tie", "loss", "contradiction")}
        slopes = [score.detail["lengthSlope"] for score in scores if "lengthSlope" in score.detail]
        decided = [score.detail["win"] for score in scores if "win" in score.detail]
        return {
            "judge": self._judge.name,
            "usage": self._judge.usage(),
            **counts,
            "rawWinRate": sum(decided) / len(decided) if decided else None,
            "lengthSlope": slopes[0] if slopes else None,
            "warnings": [self._family_warning] if self._family_warning else [],
        }

    def _compare(self, items: Sequence[ScoredItem], others: Sequence[ScoredItem]) -> list[Score]:
        pairs = [
            (item, item.answers[0], other.answers[0]) if item.answers and other.answers else None
            for item, other in zip(items, others, strict=True)
        ]
        asked = [pair for pair in pairs if pair is not None and _decide(*pair[1:]) is None]
        questions = [
            ask_better(self._rubric, item.question, item.expected, first, second)
            for item, answer, other in asked
            for first, second in [(answer.text, other.text), (other.text, answer.text)]
        ]
        verdicts = iter(self._judge.ask_all(questions, read_better))
        scores: list[Score] = []
        for pair in pairs:
            if pair is None:
                scores.append(Score(None, {"reason": "no answer"}))
            elif (decided := _decide(*pair[1:])) is not None:
                scores.append(_verdict_score(decided, pair[1], pair[2]))
            else:
                scores.append(_read_verdicts(next(verdicts), next(verdicts), pair[1], pair[2]))
        return _control(_refuse_indecision(scores, len(asked)))

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        raise NotImplementedError("answers are compared with others only: use score_sides")


def _decide(answer: Answer, other: Answer) -> float | None:
    """Verdict that needs no judge: one of them, or both, have no text, or they are the same."""
    if is_judged(answer) and is_judged(other):
        return _DRAW if answer.text.strip() == other.text.strip() else None
    return _DRAW if is_judged(answer) == is_judged(other) else float(is_judged(answer))


def _read_verdicts(straight: Any, swapped: Any, answer: Answer, other: Answer) -> Score:
    """Score from the verdicts in both orders."""
    if (missing := score_missing(straight, swapped)) is not None:
        return missing
    turned = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}[swapped]
    if straight != turned:
        score = _verdict_score(_DRAW, answer, other, "contradiction")
    else:
        score = _verdict_score({FIRST: _WIN, SECOND: _LOSS, TIE: _DRAW}[straight], answer, other)
    return Score(score.value, {**score.detail, "judged": True})


def _verdict_score(win: float, answer: Answer, other: Answer, verdict: str = "") -> Score:
    named = verdict or {_WIN: "win", _LOSS: "loss", _DRAW: "tie"}[win]
    longer = len(answer.text) - len(other.text)
    return Score(win, {"verdict": named, "win": win, "longerBy": longer})


def _refuse_indecision(scores: list[Score], asked: int) -> list[Score]:
    """The scores; none at all where the judge contradicts itself too often, or never prefers an answer."""
    verdicts = [score.detail["verdict"] for score in scores if score.detail.get("judged")]
    contradictions = verdicts.count("contradiction")
    if asked < _ENOUGH_PAIRS:
        return scores
    if contradictions > MAX_CONTRADICTIONS * asked:
        said = (
            f"the judge contradicts itself on {contradictions} of {asked} pairs when their order is swapped"
        )
    elif verdicts and set(verdicts) <= {"tie", "contradiction"}:
        said = f"the judge prefers no answer in any of {asked} pairs that differ"
    else:
        return scores
    reason = f"{said}: choose a stronger judge, or write a clearer rubric"
    return [Score(None, {**score.detail, "reason": reason}) for score in scores]


def _control(scores: list[Score]) -> list[Score]:
    """The scores, controlled for length."""
    known = [score for score in scores if score.value is not None]
    if not known:
        return scores
    control = control_lengths(
        [score.detail["win"] for score in known], [score.detail["longerBy"] for score in known]
    )
    values = iter(control.values)
    return [
        score if score.value is None else Score(next(values), {**score.detail, "lengthSlope": control.slope})
        for score in scores
    ]


def _opposite(detail: Any) -> dict[str, Any]:
    """Detail of the same verdict, seen from the other side."""
    turned = dict(detail)
    if "win" in turned:
        names = {"win": "loss", "loss": "win"}
        turned |= {
            "win": 1 - turned["win"],
            "longerBy": -turned["longerBy"],
            "verdict": names.get(turned["verdict"], turned["verdict"]),
        }
    return turned
