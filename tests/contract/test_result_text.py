"""Texts on results of an evaluation: which change is the headline, how changes and gates are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.evaluation import Expect
from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.result_text import (
    GatedMetric,
    choose_headline,
    describe_change,
    describe_expectation,
    describe_margin,
    signed,
)

MEASURED = [("general", "ExactMatch"), ("task", "ExactMatch"), ("task", "JSONFields")]


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        (
            [("general", "ExactMatch", "NotWorse", "Blocking"), ("task", "JSONFields", "Better", "Blocking")],
            MEASURED[2],
        ),
        (
            [("general", "ExactMatch", "Better", "Advisory"), ("task", "ExactMatch", "NotWorse", "Blocking")],
            MEASURED[1],
        ),
        ([("task", "JSONFields", "NotWorse", "Advisory")], MEASURED[2]),
        ([("missing", "ExactMatch", "Better", "Blocking")], MEASURED[0]),
        ([], MEASURED[0]),
    ],
)
def test_the_first_blocking_improvement_is_the_headline(
    gates: list[tuple[str, str, str, str]], expected: tuple[str, str]
) -> None:
    assert choose_headline([GatedMetric(*gate) for gate in gates], MEASURED) == expected


def test_nothing_measured_has_no_headline() -> None:
    assert choose_headline([GatedMetric("task", "ExactMatch", "Better", "Blocking")], []) is None


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (Interval(0.12, 0.09, 0.15), "+0.12 ±0.03"),
        (Interval(-0.004, -0.0062, -0.001), "-0.004 ±0.003"),
        (Interval(-0.001, -0.09, 0.02), "+0.00 ±0.09"),
        (Interval(0.9, 0.7, 0.95), "+0.90 ±0.20"),
        (Interval(0, 0, 0), "+0.00 ±0.00"),
        (Interval(-1234.5, -1300, -1200), "-1,234 ±66"),
        (Interval(2.34, 1.2, 3.4), "+2.3 ±1.2"),
    ],
)
def test_a_change_is_written_with_its_uncertainty(delta: Interval, text: str) -> None:
    assert describe_change(delta) == text


def test_an_interval_without_ends_is_infinite() -> None:
    assert describe_change(Interval(0.125, -1e9, 1e9)) == "+0.12 ±∞"
    assert (signed(-1e9, 2), signed(1e9, 2)) == ("-∞", "+∞")


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_range_is_never_shown_narrower_than_it_is(value: float, below: float, above: float) -> None:
    shown = float(describe_change(Interval(value, value - below, value + above)).partition("±")[2])
    assert shown >= max(below, above) - 1e-9


@pytest.mark.parametrize(
    ("expect", "margin", "text"),
    [
        (Expect.BETTER, (0.0,), "better"),
        (Expect.BETTER, (0.05,), "better by more than 0.05"),
        (Expect.NOT_WORSE, (0.02,), "worse by less than 0.02"),
        (Expect.NOT_WORSE, (0.0, 0.025), "worse by less than 2.5 % of the baseline's score"),
        (Expect.BETTER, (0.0, 0.02, 0.01), "better by more than 2 % of the baseline's score (at least 0.01)"),
    ],
)
def test_a_gate_is_written_in_words(expect: Expect, margin: tuple[float, ...], text: str) -> None:
    assert describe_expectation(expect, describe_margin(*margin)) == text
