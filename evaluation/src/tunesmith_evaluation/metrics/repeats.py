"""Scorers of several answers: pass@k over repeats, consistency over paraphrases."""

from collections import defaultdict
from collections.abc import Sequence
from math import comb

from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Expected, Question
from .classification import fold_label
from .json_values import PARSE_ERRORS, json_equal, parse_json, strip_code_block
from .scorer import Score, ScoredItem, Scorer
from .tool_call_scorer import compare_calls

_ALONE = {"reason": "no other answer in its group"}


class PassAtK(Scorer):
    """Probability that at least one of k answers is right, estimated without bias from all repeats of an item.

    1 - C(n - c, k) / C(n, k) for c right ones of n (Chen et al. 2021, arXiv:2107.03374, equation 1). An item is one
    observation, however many repeats it has.

    Args:
        scorer: decides with 0 or 1 if an answer is right.
        k: number of answers.
    """

    name = "PassAtK"

    def __init__(self, scorer: Scorer, k: int) -> None:
        if scorer.kind is not ScoreKind.BINARY:
            raise ValueError(f"PassAtK needs a metric with scores 0 and 1, which {scorer.name} is not")
        self._scorer = scorer
        self.k = k
        self.version = f"1 k={k} {scorer.name} {scorer.version}"
        self.kind = ScoreKind.BINARY if k == 1 else ScoreKind.UNIT_INTERVAL

    def check(self, expected: Expected) -> str | None:
        """Reason of the scorer that decides."""
        return self._scorer.check(expected)

    def check_suite(self, items: Sequence[Expected]) -> str | None:
        """Reason of the scorer that decides."""
        return self._scorer.check_suite(items)

    def score_item(self, item: ScoredItem) -> Score:
        """Estimate from all repeats."""
        scores = [self._scorer.score(item.question, item.expected, answer) for answer in item.answers]
        values = [score.value for score in scores if score.value is not None]
        if len(values) < len(scores) or len(scores) < self.k:
            reasons = (score.detail.get("reason") for score in scores if score.value is None)
            few = f"{len(scores)} answers are fewer than k = {self.k}: raise repeats"
            return Score(None, {"reason": next(reasons, few)})
        right = sum(value == 1 for value in values)
        return Score(pass_at_k(len(values), right, self.k), {"right": right, "answers": len(values)})

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self._scorer.score(question, expected, answer)


class Consistency(Scorer):
    """Share of the other answers of an item's group that say the same; items of a group are paraphrases.

    Answers are the same if they are equal as JSON, or as text up to case, whitespace and punctuation around it. An
    empty answer agrees with none. A model that is always wrong in the same way is consistent: gate a metric of
    correctness as well.
    """

    name = "Consistency"
    scores_calls = True

    def check_suite(self, items: Sequence[Expected]) -> str | None:
        """Each item needs another one in its group."""
        sizes: defaultdict[str | None, int] = defaultdict(int)
        for expected in items:
            sizes[expected.group] += 1
        alone = sum(sizes[expected.group] < 2 for expected in items)
        if alone:
            advice = "write the same value into groupColumn of all paraphrases of one question"
            return f"{alone} rows are the only ones of their group, so nothing can agree with them: {advice}"
        return None

    def _check(self, expected: Expected) -> str | None:
        if expected.group is None:
            row = "a row" if expected.row is None else f"row {expected.row}"
            return (
                f"{row} has no group: set groupColumn, and write one value for all paraphrases of a question"
            )
        return None

    def score_all(self, items: Sequence[ScoredItem]) -> list[Score]:
        """Scores of all items; of several repeats, the first counts. Items without an answer are left out."""
        groups: defaultdict[str | None, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            if item.answers:
                groups[item.expected.group].append(index)
        scores = [Score(None, {"reason": "no answer"} if not item.answers else _ALONE) for item in items]
        for members in groups.values():
            for index in members:
                others = [
                    items[other].answers[0] for other in members if other != index and items[other].answers
                ]
                if others and items[index].answers:
                    same = sum(_same_answer(items[index].answers[0], other) for other in others)
                    scores[index] = Score(same / len(others), {"same": same, "others": len(others)})
        return scores

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        raise NotImplementedError("an answer is consistent with others only: use score_all")


def pass_at_k(answers: int, right: int, k: int) -> float:
    """Unbiased estimate of pass@k.

    Args:
        answers: number of answers, at least k.
        right: number of right ones.
        k: number of answers of which one has to be right.
    """
    return 1.0 - comb(answers - right, k) / comb(answers, k)


def _same_answer(left: Answer, right: Answer) -> bool:
    if not (left.complete and right.complete) or left.malformed_calls or right.malformed_calls:
        return False
    missing, extra = compare_calls(left.tool_calls, right.tool_calls)
    if missing or extra:
        return False
    if not left.text.strip() or not right.text.strip():
        return bool(left.tool_calls) and left.text.strip() == right.text.strip()
    try:
        one, other = (parse_json(strip_code_block(answer.text)) for answer in (left, right))
        return json_equal(one, other, loose_text=True)
    except PARSE_ERRORS:
        return fold_label(left.text) == fold_label(right.text)
