"""Scorers of classes: accuracy and macro-F1, with a confusion matrix."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith_evaluation.statistics.corpus import macro_f1, macro_f1_swings, macro_f1_terms
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Expected, Question
from .scorer import CorpusScorer, Floats, Score, TextScorer, binary, details_of
from .words import fold

#: Predicted class of answers that are none of the labels.
NO_LABEL = ""
#: Rows of the confusion matrix beyond this number are left out of the report.
MAX_MATRIX = 50


class Accuracy(TextScorer):
    """1 if the answer is the expected label, up to case, whitespace, and marks around it such as quotes.

    The whole answer has to be a label: "not spam" is not "spam".

    Args:
        labels: all labels; empty: each item's expected answer is its label.
    """

    name = "Accuracy"
    kind = ScoreKind.BINARY

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self._labels = {fold_label(label): label for label in labels}

    def _check(self, expected: Expected) -> str | None:
        if self._labels and fold_label(expected.text) not in self._labels:
            listed = ", ".join(list(self._labels.values())[:10])
            return f"{expected.subject} is none of the labels: write one of {listed}, or add it to labels"
        return None

    def score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        """Score of an answer; one without an end of its thinking has no label."""
        score = super().score(question, expected, answer)
        return Score(
            score.value, {"expected": fold_label(expected.text), "predicted": NO_LABEL, **score.detail}
        )

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for the expected label."""
        wanted, found = fold_label(expected.text), fold_label(text)
        return binary(found == wanted, predicted=found)

    def summarize(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Confusion matrix; answers that are no label have the predicted label ``""``."""
        pairs = _label_pairs(scores)
        labels = sorted(set(self._labels) | {expected for expected, _ in pairs})
        counts = Counter(
            (expected, predicted if predicted in labels else NO_LABEL) for expected, predicted in pairs
        )
        columns = [*labels[:MAX_MATRIX], NO_LABEL]
        return {
            "labels": [self._labels.get(label, label) for label in labels[:MAX_MATRIX]],
            "confusion": [[counts[label, column] for column in columns] for label in labels[:MAX_MATRIX]],
            "labelsLeftOut": max(0, len(labels) - MAX_MATRIX),
        }


class MacroF1(Accuracy, CorpusScorer):
    """Mean of the labels' F1 scores, each of which counts the same however rare it is.

    Labels that are neither expected nor given are left out, as by ``sklearn.metrics.f1_score(average="macro")``.
    Answers that are no label count as missed. With repeats, each answer counts.
    """

    name = "MacroF1"
    kind = ScoreKind.CORPUS
    upper = 1.0
    swings = staticmethod(macro_f1_swings)

    def corpus_terms(self, sides: Sequence[Sequence[Score]]) -> tuple[Floats, Callable[[Floats], Floats]]:
        """Terms of ``statistics.corpus.macro_f1``."""
        pairs = [[_label_pairs([score]) for score in scores] for scores in sides]
        expected = {label for side in pairs for item in side for label, _ in item}
        numbers = {label: number for number, label in enumerate(sorted(expected | set(self._labels)))}
        terms = [[_item_terms(item, numbers) for item in side] for side in pairs]
        return np.array(terms).reshape(len(sides), len(sides[0]), 3 * len(numbers)), macro_f1


def fold_label(text: str) -> str:
    """A label without differences that don't count: case, whitespace, and punctuation around it."""
    label = fold(text, ignore_case=True)
    begin, end = 0, len(label)
    while begin < end and _is_around(label[begin]):
        begin += 1
    while end > begin and _is_around(label[end - 1]):
        end -= 1
    return label[begin:end] or label


def _is_around(character: str) -> bool:
    return character in "*`" or character.isspace() or unicodedata.category(character) in _AROUND


#: Quotes, brackets, and other punctuation such as points; not dashes, symbols such as + or connectors.
_AROUND = frozenset({"Pi", "Pf", "Ps", "Pe", "Po"})


def _label_pairs(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Expected and predicted label of each answer."""
    return [
        (detail["expected"], detail["predicted"])
        for score in scores
        for detail in details_of(score)
        if "expected" in detail
    ]


def _item_terms(pairs: Sequence[tuple[str, str]], numbers: Mapping[str, int]) -> Floats:
    """Terms of one item, over its repeats."""
    expected = np.array([numbers[label] for label, _ in pairs], np.int64)
    predicted = np.array([numbers.get(label, -1) for _, label in pairs], np.int64)
    terms: Floats = macro_f1_terms(predicted, expected, len(numbers)).sum(axis=0)
    return terms
