"""Classes, likelihoods, repeats, consistency, time and tokens."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tunesmith_evaluation.metrics.answers import Answer, Call, Expected, Likelihood, Question
from tunesmith_evaluation.metrics.classification import Accuracy, MacroF1, fold_label
from tunesmith_evaluation.metrics.measurements import BitsPerByte, Latency, Perplexity, Tokens
from tunesmith_evaluation.metrics.repeats import Consistency, PassAtK, pass_at_k
from tunesmith_evaluation.metrics.scorer import Score, ScoredItem, Scorer
from tunesmith_evaluation.metrics.text_scorers import ExactMatch, TokenF1

QUESTION = Question("?")


def score_texts(scorer: Scorer, expected: Sequence[str], texts: Sequence[str]) -> list[Score]:
    pairs = zip(expected, texts, strict=True)
    return scorer.score_all([ScoredItem(QUESTION, Expected(label), (Answer(text),)) for label, text in pairs])


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(seed: int) -> None:
    generator = random.Random(seed)
    labels = ["spam", "not spam", "other"]
    expected = generator.choices(labels, [5, 3, 1], k=60)
    texts = [generator.choice([label, *labels]) for label in expected]
    scores = score_texts(MacroF1(labels), expected, texts)
    assert MacroF1(labels).aggregate(scores) == pytest.approx(f1_score(expected, texts, average="macro"))
    assert Accuracy().aggregate(scores) == pytest.approx(accuracy_score(expected, texts))
    summary = MacroF1(labels).summarize(scores)
    matrix = confusion_matrix(expected, texts, labels=summary["labels"])
    assert [row[:-1] for row in summary["confusion"]] == matrix.tolist()


def test_an_answer_that_is_no_label_is_missed() -> None:
    scores = score_texts(MacroF1(), ["yes", "yes", "no"], ["yes", "It depends.", "no"])
    # yes: precision 1, recall 1/2; no: 1.
    assert MacroF1().aggregate(scores) == pytest.approx((2 / 3 + 1) / 2)
    assert MacroF1().summarize(scores)["confusion"] == [[1, 0, 0], [0, 1, 1]]


def test_macro_f1_of_two_sides_has_terms_over_the_same_labels() -> None:
    sides = [score_texts(MacroF1(), ["a", "b", "c"], texts) for texts in (["a", "b", "c"], ["b", "b", ""])]
    sides[1][2] = Score(None, {"reason": "too long"})
    terms, statistic = MacroF1().corpus_terms(sides)
    assert terms.shape == (2, 3, 9)
    assert statistic(terms[0].sum(axis=0)) == 1
    assert not terms[1, 2].any()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("spam", 1),
        (" Spam. ", 1),
        ('"SPAM"', 1),
        ("**spam**", 1),
        ("not spam", 0),
        ("It is spam", 0),
        ("", 0),
    ],
)
def test_the_whole_answer_has_to_be_the_label(text: str, label: float) -> None:
    assert score_texts(Accuracy(["spam", "not spam"]), ["spam"], [text])[0].value == label


def test_labels_that_are_marks_stay() -> None:
    assert [fold_label(text) for text in ("+1", "-1", "C++", "...", "#3")] == ["+1", "-1", "c++", "...", "3"]


def test_expected_answers_have_to_be_labels() -> None:
    problem = Accuracy(["spam", "ham"]).check(Expected("jam", row=4))
    assert (
        problem
        == "the expected answer of row 4 is none of the labels: write one of spam, ham, or add it to labels"
    )
    assert Accuracy(["spam", "ham"]).check(Expected("Ham")) is None


def test_an_incomplete_answer_is_in_no_class() -> None:
    item = ScoredItem(QUESTION, Expected("yes"), (Answer("", complete=False),))
    (score,) = MacroF1().score_all([item])
    assert score.value == 0
    assert MacroF1().aggregate([score]) == 0


LIKELIHOODS = [("the red hinge", -7.25, 4), ("aisle 4 🔩", -3.5, 6), ("no", -0.125, 1)]


def likelihood_scores(scorer: Scorer) -> list[Score]:
    return [
        scorer.score(QUESTION, Expected(text), Answer("", likelihood=Likelihood(log, tokens)))
        for text, log, tokens in LIKELIHOODS
    ]


def test_perplexity_and_bits_per_byte_are_those_of_the_harness() -> None:
    scores = likelihood_scores(Perplexity())
    assert Perplexity().aggregate(scores) == pytest.approx(
        weighted_perplexity([(log, tokens) for _, log, tokens in LIKELIHOODS])
    )
    assert scores[0].value == pytest.approx(math.exp(7.25 / 4))
    by_bytes = [(log, len(text.encode())) for text, log, _ in LIKELIHOODS]
    assert BitsPerByte().aggregate(likelihood_scores(BitsPerByte())) == pytest.approx(bits_per_byte(by_bytes))


def test_likelihoods_that_are_missing_have_no_score_and_impossible_ones_a_finite_one() -> None:
    scorer = Perplexity()
    for likelihood in (None, Likelihood(math.nan, 3), Likelihood(-1.0, 0)):
        score = scorer.score(QUESTION, Expected("a"), Answer("", likelihood=likelihood))
        assert score.value is None
        assert "log-probabilities" in score.detail["reason"]
    impossible = scorer.score(QUESTION, Expected("a"), Answer("", likelihood=Likelihood(-math.inf, 2)))
    assert impossible.value == pytest.approx(math.exp(100))
    assert scorer.aggregate([score]) is None


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_product_of_its_authors(case: tuple[int, int, int]) -> None:
    answers, right, k = case
    # The formula in the code of Chen et al. 2021.
    product = (
        1.0 if answers - right < k else 1.0 - np.prod(1.0 - k / np.arange(answers - right + 1, answers + 1))
    )
    assert pass_at_k(answers, right, k) == pytest.approx(product)
    assert 0 <= pass_at_k(answers, right, k) <= 1


def test_pass_at_k_needs_enough_answers_and_scores_incomplete_ones_0() -> None:
    scorer = PassAtK(ExactMatch(), 2)
    answers = (Answer("a"), Answer("b"), Answer("", complete=False), Answer("a"))
    score = scorer.score_item(ScoredItem(QUESTION, Expected("a"), answers))
    assert score.value == pytest.approx(1 - 1 / 6)
    assert score.detail == {"right": 2, "answers": 4}
    few = scorer.score_item(ScoredItem(QUESTION, Expected("a"), answers[:1]))
    assert few.value is None
    assert "raise repeats" in few.detail["reason"]
    with pytest.raises(ValueError, match="TokenF1"):
        PassAtK(TokenF1(), 1)


def test_repeats_count_by_their_mean() -> None:
    score = ExactMatch().score_item(ScoredItem(QUESTION, Expected("a"), (Answer("a"), Answer("b"))))
    assert score.value == 0.5
    assert ExactMatch().score_item(ScoredItem(QUESTION, Expected("a"), ())).value is None


def group(name: str | None, *texts: str) -> list[ScoredItem]:
    return [
        ScoredItem(QUESTION, Expected("x", group=name, row=n), (Answer(text),))
        for n, text in enumerate(texts)
    ]


def test_consistency_is_the_share_of_paraphrases_that_agree() -> None:
    items = [
        *group("1", "Aisle 4", " aisle  4.", "aisle 5"),
        *group("2", '{"a": 1, "b": 2}', '{"b":2,"a":1.0}'),
    ]
    assert [score.value for score in Consistency().score_all(items)] == [1 / 2, 1 / 2, 0, 1, 1]


def test_saying_nothing_is_not_consistent() -> None:
    assert [score.value for score in Consistency().score_all(group("1", "", "  "))] == [0, 0]
    calls = tuple(
        ScoredItem(QUESTION, Expected("x", group="1"), (Answer("", tool_calls=(Call("f", {"x": x}),)),))
        for x in (1, 1.0, 2)
    )  # fmt: skip
    assert [score.value for score in Consistency().score_all(calls)] == [1 / 2, 1 / 2, 0]


def test_consistency_needs_groups_of_two() -> None:
    assert "set groupColumn" in (Consistency().check(Expected("x", row=1)) or "")
    items = [item.expected for item in [*group("1", "a", "b"), *group("2", "a")]]
    assert (Consistency().check_suite(items) or "").startswith("1 rows are the only ones of their group")
    assert Consistency().check_suite(items[:2]) is None


def test_time_and_tokens_of_any_answer_count() -> None:
    answer = Answer("", complete=False, seconds=1.5, answer_tokens=3, thinking_tokens=40)
    assert Latency().score(QUESTION, Expected("x"), answer).value == 1.5
    assert Tokens().score(QUESTION, Expected("x"), answer).value == 43
    assert not Latency.higher_is_better
    for scorer in (Latency(), Tokens()):
        assert scorer.score(QUESTION, Expected("x"), Answer("")).value is None


@pytest.mark.parametrize("scorer", [Latency(), Tokens()])
def test_an_empty_answer_is_neither_fast_nor_brief(scorer: Scorer) -> None:
    empty = Answer(" \n", seconds=0.1, answer_tokens=1)
    assert scorer.score(QUESTION, Expected("x"), empty).detail == {"reason": "the answer is empty"}
    call = Answer("", tool_calls=(Call("look", {}),), seconds=0.1, answer_tokens=1)
    assert scorer.score(QUESTION, Expected("x"), call).value is not None


@pytest.mark.parametrize("value", [1e300, float("inf"), float("nan"), -1.0])
def test_a_number_that_no_answer_can_have_is_no_measurement(value: float) -> None:
    score = Latency().score(QUESTION, Expected("x"), Answer("text", seconds=value))
    assert score.value is None
    assert "is no measurement: 0 to 1e+09 is expected" in score.detail["reason"]
