"""Geometry of charts, and words in which answers differ."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.report import Interval
from tunesmith_evaluation.report.charts import (
    WIDTH,
    Difference,
    Direction,
    direction,
    draw_forest,
    draw_outcomes,
    ticks,
)
from tunesmith_evaluation.report.word_diff import diff_words

texts = st.text(alphabet="ab \n.漢é", max_size=60)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=8),
    st.lists(st.floats(-1e6, 1e6), max_size=2),
)
def test_everything_is_drawn_within_the_chart(
    differences: list[tuple[float, float, float]], thresholds: list[float]
) -> None:
    forest = draw_forest(
        [
            Difference(Interval(value, value - below, value + above), thresholds=tuple(thresholds))
            for value, below, above in differences
        ]
    )
    for row in forest.rows:
        for at in (row.low, row.value, row.high, *row.thresholds):
            assert 0 <= at <= WIDTH
        assert row.low <= row.value <= row.high
    assert all(0 <= tick.at <= WIDTH for tick in forest.ticks)


def test_the_strictest_gate_bounds_the_failing_range() -> None:
    higher = Difference(Interval(0.1, 0.0, 0.2), thresholds=(-0.05, 0.15))
    lower = Difference(Interval(0.1, 0.0, 0.2), higher_is_better=False, thresholds=(-0.05, 0.15))
    up, down = draw_forest([higher, lower]).rows
    assert up.failing == (0.0, up.thresholds[1])
    assert down.failing is not None
    assert down.failing[0] == down.thresholds[0]
    assert sum(down.failing) == pytest.approx(WIDTH)


@pytest.mark.parametrize(
    ("interval", "higher_is_better", "meaning"),
    [
        ((0.01, 0.2), True, Direction.BETTER),
        ((0.01, 0.2), False, Direction.WORSE),
        ((-0.2, -0.01), True, Direction.WORSE),
        ((-0.2, -0.01), False, Direction.BETTER),
        ((-0.1, 0.1), True, Direction.OPEN),
        ((0.0, 0.1), True, Direction.OPEN),
    ],
)
def test_an_interval_beside_zero_has_a_direction(
    interval: tuple[float, float], higher_is_better: bool, meaning: Direction
) -> None:
    assert direction(Interval(sum(interval) / 2, *interval), higher_is_better) is meaning


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_ticks_are_few_and_within_their_range(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= low + span + 1e-9 for tick in found)


def test_no_outcome_is_no_bar() -> None:
    assert draw_outcomes(0, 0, 0) == ()
    assert [part.key for part in draw_outcomes(1, 0, 3)] == ["better", "worse"]


@given(texts, texts)
def test_pieces_are_the_texts_and_shared_ones_are_equal(left: str, right: str) -> None:
    a, b = diff_words(left, right)
    assert ("".join(piece.text for piece in a), "".join(piece.text for piece in b)) == (left, right)
    shared = ["".join(piece.text for piece in side if not piece.changed) for side in (a, b)]
    assert shared[0] == shared[1]
    assert (left == right) is not any(piece.changed for piece in (*a, *b))


def test_long_texts_are_compared_from_both_ends() -> None:
    chance = random.Random(5)
    words = [chance.choice("abcdefgh") * 3 for _ in range(4000)]
    other = [*words[:100], *reversed(words[100:3900]), *words[3900:]]
    a, b = diff_words(" ".join(words), " ".join(other))
    assert [piece.changed for piece in a] == [piece.changed for piece in b] == [False, True, False]
    assert a[0].text.count(" ") >= 98


def test_words_of_scripts_without_spaces_are_compared_by_character() -> None:
    a, _ = diff_words("日本の首都は東京です。", "日本の首都は大阪です。")
    assert [piece.text for piece in a if piece.changed] == ["東京"]
