"""Thinking apart from the answer, in the marks of several models."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_evaluation.metrics.answers import Answer, Question
from tunesmith_evaluation.metrics.json_scorers import JSONFields
from tunesmith_evaluation.metrics.reading import read_answer, read_expected, read_message
from tunesmith_evaluation.metrics.text_scorers import ExactMatch
from tunesmith_evaluation.metrics.thinking import KNOWN_MARKS, SplitAnswer, split_thinking

REASONED = [
    (
        '{"aisle": 4}',
        '<think>The draft {"aisle": 3} is wrong, hinges moved.</think>\n\n{"aisle": 4}',
        JSONFields(),
    ),
    ("aisle 4", "<think>\nHinges moved last week.\n</think>\n\naisle 4", ExactMatch()),
    ("aisle 4", "<think>\n\n</think>\n\naisle 4", ExactMatch()),
]


@pytest.mark.parametrize(("expected", "raw", "scorer"), REASONED)
def test_thoughts_are_no_part_of_the_answer(expected: str, raw: str, scorer: ExactMatch | JSONFields) -> None:
    assert scorer.score(Question(""), read_expected(expected), read_answer(raw)).value == 1


@pytest.mark.parametrize(("expected", "raw", "scorer"), REASONED)
def test_thoughts_that_never_end_are_no_answer(
    expected: str, raw: str, scorer: ExactMatch | JSONFields
) -> None:
    cut = raw.replace("</think>", "")
    score = scorer.score(Question(""), read_expected(expected), read_answer(cut, truncated=True))
    assert score.value == 0
    assert score.detail == {"incomplete": True}


@pytest.mark.parametrize(
    ("raw", "text", "thinking", "complete"),
    [
        ("plain", "plain", None, True),
        ("", "", None, True),
        ("<think>a</think>b", "b", "a", True),
        ("<THINK>a</Think>b", "b", "a", True),
        ("<thinking>a</thinking>\nb", "b", "a", True),
        ("[THINK]a[/THINK]b", "b", "a", True),
        ("<|START_THINKING|>a<|END_THINKING|>b", "b", "a", True),
        ("◁think▷a◁/think▷b", "b", "a", True),
        ("a</think>b", "b", "a", True),  # the template wrote the opening mark
        ("<think>a", "", "a", False),
        ("<think>", "", "", False),
        ("x <think>a", "", "a", False),
        ("<think>a<think>b</think>c</think>d", "d", "abc", True),  # nested
        ("<think>a</think>b<think>c</think>d", "bd", "ac", True),  # between two parts of an answer
        ("<think>about <thinking> marks</think>b", "b", "about <thinking> marks", True),
        ("<think>a</thinking>b", "", "a</thinking>b", False),  # another mark does not end it
        ("<thinkpad>", "<thinkpad>", None, True),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "b",
            "a",
            True,
        ),
        ("<|channel|>analysis<|message|>a<|end|>", "", "a", False),
        ("<|channel|>analysis", "", None, False),
        ("<|channel|>final<|message|>b", "b", None, True),
    ],
)
def test_marks(raw: str, text: str, thinking: str | None, complete: bool) -> None:
    found = split_thinking(raw)
    assert found.text == text
    assert (found.thinking or "").replace("<think>", "") == (thinking or "")
    assert (found.thinking is None) == (thinking is None)
    assert found.complete == complete


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a</think>b", SplitAnswer("b", "a")),
        ("a", SplitAnswer("", "a", complete=False)),
        ("", SplitAnswer("", "", complete=False)),
        ("<think>a</think>b", SplitAnswer("b", "<think>a")),
    ],
)
def test_a_prompt_may_have_opened_the_mark(raw: str, expected: SplitAnswer) -> None:
    assert split_thinking(raw, starts_inside=True) == expected


@given(
    st.lists(
        st.sampled_from([mark for pair in KNOWN_MARKS for mark in (pair.opening, pair.closing)] + ["a", "b"])
    )
)
def test_no_mark_of_an_open_pair_is_left_in_an_answer(parts: list[str]) -> None:
    found = split_thinking("".join(parts))
    assert found.complete or not found.text
    for pair in KNOWN_MARKS:
        assert pair.opening not in found.text


def test_reasoning_of_an_endpoint_is_thinking() -> None:
    answer = read_message({"content": "aisle 4", "reasoning_content": "moved"})
    assert answer == Answer("aisle 4", "aisle 4", "moved")
    assert read_message({"content": "<think>moved</think>aisle 4"}).text == "aisle 4"
    assert not read_message({"content": None, "reasoning_content": "mo"}, truncated=True).complete


def test_thinking_in_the_expected_answer_does_not_count() -> None:
    assert read_expected("<think>moved</think>\n\naisle 4").text == "aisle 4"


def test_hostile_answers_take_no_time() -> None:
    for part in ("<think>", "</think>", "<|channel|>", "<|channel|>a<|message|>", "<|start|>assistant"):
        split_thinking(part * 30_000)
    json.dumps(split_thinking("\ud800</think>b").text)
