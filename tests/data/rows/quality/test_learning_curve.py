"""Learning curve: predictions for twice as many rows, and cases without a conclusion."""

import random

import pytest
from rows.planted_faults import chat_row, judged_rows, preference_rows, prompt_rows, survey, text_rows

from tunesmith_data.rows.report.data_report import LearningCurve
from tunesmith_data.rows.schema.formats import Row


def word(chance: random.Random) -> str:
    return "".join(
        chance.choice("bdfgklmnprst") + chance.choice("aeiou") for _ in range(chance.randint(2, 4))
    )


def class_rows(count: int, vocabulary: int, wrong: float, seed: int = 1) -> list[Row]:
    """Four classes, each with words of its own: the more words, the more rows it takes to know them."""
    chance, of_words = random.Random(seed), random.Random(3)
    words = [[word(of_words) for _ in range(vocabulary)] for _ in range(4)]
    rows = []
    for number in range(count):
        label = chance.randrange(4)
        text = " ".join(chance.choice(words[label]) for _ in range(8))
        rows.append(
            chat_row(f"{text} {number}", f"label {chance.randrange(4) if chance.random() < wrong else label}")
        )
    return rows


def free_rows(count: int, vocabulary: int, seed: int = 1) -> list[Row]:
    """Answers of six words."""
    chance, of_words = random.Random(seed), random.Random(7)
    words = [word(of_words) for _ in range(vocabulary)]
    return [chat_row(f"question {n}", " ".join(chance.choices(words, k=6)) + ".") for n in range(count)]


def curve_of(rows: list[Row], method: str = "sft") -> LearningCurve:
    found = survey(rows, method).finish()
    assert found
    assert found.learning_curve
    return found.learning_curve


@pytest.mark.parametrize("count", [1_000, 2_000])
def test_more_rows_help_where_many_words_are_unknown(count: int) -> None:
    curve = curve_of(class_rows(count, 4_000, wrong=0))
    assert curve.verdict.endswith("more data would help.")
    truth = curve_of(class_rows(2 * count, 4_000, wrong=0)).now
    assert curve.doubled == pytest.approx(truth, rel=0.5)
    assert truth < 0.7 * curve.now


def test_more_answers_help_where_many_words_are_unknown() -> None:
    curve = curve_of(free_rows(1_000, 3_000))
    assert curve.measure == "bits per character of held-out answers"
    assert curve.verdict.endswith("more data would help.")
    assert curve.doubled == pytest.approx(curve_of(free_rows(2_000, 3_000)).now, rel=0.1)


def test_more_rows_hardly_help_where_only_wrong_labels_are_left() -> None:
    curve = curve_of(class_rows(2_000, 20, wrong=0.2))
    assert curve.verdict.endswith("more data would hardly help.")
    assert curve.doubled == pytest.approx(0.15, abs=0.04)


def test_more_answers_hardly_help_where_all_words_are_known() -> None:
    assert "more data would hardly help" in curve_of(free_rows(6_000, 5)).verdict


def test_labels_by_chance_say_nothing() -> None:
    assert "unclear whether more data would help" in curve_of(class_rows(500, 20, wrong=1)).verdict


@pytest.mark.parametrize(
    ("method", "rows", "measure"),
    [
        ("dpo", preference_rows(300), "share of pairs that a small model orders wrongly"),
        ("kto", judged_rows(300), "share of judgements that a small model gets wrong"),
        ("pretraining", text_rows(100), "bits per character of held-out texts"),
        ("grpo", prompt_rows(100), "bits per character of held-out answers"),
    ],
)
def test_each_kind_has_its_measure(method: str, rows: list[Row], measure: str) -> None:
    assert curve_of(rows, method).measure == measure


def test_few_rows_and_prompts_alone_have_no_curve() -> None:
    for rows, method in (
        (free_rows(63, 50), "sft"),
        ([{"prompt": row["prompt"]} for row in prompt_rows(100)], "grpo"),
    ):
        found = survey(rows, method).finish()
        assert found
        assert found.learning_curve is None
