"""JSON, scores and choices in the answers of models; similar texts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_data.generate.json_answers import find_choice, find_objects, find_score
from tunesmith_data.generate.similar_questions import SimilarTexts, normalize_words


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 7}', 7),
        ('```json\n{"score": "8"}\n```', 8),
        ('First {"score": 2}, on reflection {"reason": "better", "score": 9}', 9),
        ('<think>maybe {"score": 1}?</think>{"score": 6.5}', 6.5),
        ("Score: 7/10", 7),
        ("I would give it 8 out of 10.", 8),
        ("**Rating**: 4", 4),
        ("The score is 3", 3),
        (" 9. ", 9),
        ('{"score": 0}', None),
        ('{"score": 11}', None),
        ('{"score": null}', None),
        ('{"score": [7]}', None),
        ('{"score": NaN}', None),
        ("I can't say.", None),
        ("", None),
    ],
)
def test_a_score_is_found_or_none(text: str, score: float | None) -> None:
    assert find_score(text) == score


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"best": "B", "worst": "A"}', (1, 0)),
        ('So: {"best": "c", "worst": " a "} it is.', (2, 0)),
        ('{"best": "A", "worst": "A"}', None),
        ('{"best": "D", "worst": "A"}', None),
        ('{"best": "AB", "worst": "C"}', None),
        ('{"best": "", "worst": "C"}', None),
        ("B is the best", None),
    ],
)
def test_a_choice_is_found_or_none(text: str, choice: tuple[int, int] | None) -> None:
    assert find_choice(text, "ABC") == choice


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), _JSON, min_size=1, max_size=3), max_size=4),
    st.integers(0, 400),
)
def test_whole_objects_of_a_list_are_found_wherever_it_is_cut(
    rows: list[dict[str, object]], length: int
) -> None:
    text = json.dumps(rows)
    found = list(find_objects(f"Here: {text}"))
    assert found == rows
    torn = list(find_objects(text[:length]))
    complete = sum(len(json.dumps(rows[: count + 1])) - 1 <= length for count in range(len(rows)))
    assert torn[:complete] == rows[:complete]


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    find_score(text)
    find_choice(text, "AB")
    assert all(isinstance(found, dict) for found in find_objects(text))


def test_a_hostile_answer_is_not_read_for_ever() -> None:
    assert list(find_objects('{"a":' * 100_000)) == []


_WORDS = st.lists(
    st.sampled_from(["sort", "the", "numbers", "a", "of", "weekly", "report", "now"]), max_size=8
)


@given(st.lists(_WORDS, max_size=8), _WORDS, st.sampled_from([0.7, 0.8, 1.0]))
def test_near_texts_are_those_of_jaccard(seen: list[list[str]], words: list[str], threshold: float) -> None:
    near = SimilarTexts(threshold)
    for text in seen:
        near.add(" ".join(text))

    def likeness(other: list[str]) -> float:
        mine, theirs = set(words), set(other)
        return len(mine & theirs) / len(mine | theirs) if mine else 0.0

    assert near.contains_similar(" ".join(words)) is any(likeness(text) >= threshold - 1e-9 for text in seen)


def test_case_punctuation_and_spaces_are_no_difference() -> None:
    assert (
        normalize_words("  What's\nthe CAPITAL of \N{FULLWIDTH LATIN CAPITAL LETTER F}rance?! ")
        == "what s the capital of france"
    )
