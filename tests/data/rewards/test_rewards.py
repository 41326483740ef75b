"""Rewards: scores as documented, clear errors, no endless runs."""

import json
import math
import sys
import time
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.methods import LengthReward, Reward
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rewards.build import RewardedRows, build_reward_functions, check_rewards
from tunesmith_data.rewards.rule_rewards import last_number, length_score

END = 0


def build(**kind: Any) -> Any:
    """The reward function of one kind."""
    reward = Reward.model_validate({"name": "good", **kind})
    (function,), (weight,) = build_reward_functions([reward], [END], Storage())
    assert weight == 1
    assert function.__name__ == "good"
    return function


def score(texts: list[str], answers: list[str | None] | None = None, **kind: Any) -> list[float]:
    """The reward of plain answers."""
    ids = [[1] * len(text.split()) for text in texts]
    prompts = ["?"] * len(texts)
    scores: list[float] = build(**kind)(
        prompts=prompts, completions=texts, completion_ids=ids, **({"answer": answers} if answers else {})
    )
    assert all(math.isfinite(each) for each in scores)
    return scores


@given(st.text(), st.text())
def test_exact(text: str, answer: str) -> None:
    padded = f"\n {answer}\t "
    assert score([padded, text], [answer, answer], exact={}) == [1, text.strip() == answer.strip()]
    shouted = score([text.upper()], [text.upper().lower()], exact={"ignoreCase": True})
    assert shouted == [text.upper().strip().casefold() == text.upper().lower().strip().casefold()]


def test_conversations_are_judged_by_the_assistants_words() -> None:
    completions = [[{"role": "assistant", "content": "yes"}]]
    prompts = [[{"role": "user", "content": "?"}]]
    function = build(exact={})
    assert function(prompts=prompts, completions=completions, completion_ids=[[1]], answer=["yes"]) == [1]


def test_a_pattern_is_found_anywhere_and_never_takes_long() -> None:
    assert score(["a 42 b", "no"], regex={"pattern": r"\d+"}) == [1, 0]
    start = time.perf_counter()
    assert score(["a" * 5_000 + "!"], regex={"pattern": r"^(a+)+$"}) == [0]
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1"])
def test_a_wrong_pattern_is_said_before_training(pattern: str) -> None:
    reward = Reward.model_validate({"name": "form", "regex": {"pattern": pattern}})
    with pytest.raises(UserError, match=r"reward form: the pattern .* RE2"):
        check_rewards([reward])


SCHEMA = {
    "type": "object",
    "required": ["low"],
    "properties": {"low": {"$ref": "#/$defs/n"}, "code": {"pattern": "^(a+)+$"}},
    "$defs": {"n": {"type": "integer", "maximum": 5}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"low": 3}', 1),
        (' {"low": 3}\n', 1),
        ('{"low": 7}', 0),
        ("[1]", 0),
        ('{"low": 3} and so on', 0),
        ('{"low": NaN}', 0),
        ("", 0),
        ("[" * 100_000, 0),
        ('{"low": 3, "code": "' + "a" * 5_000 + '!"}', 0),
        ("9" * 5_000, 0),
    ],
)
def test_json_schema(text: str, expected: float) -> None:
    assert score([text], jsonSchema={"jsonSchema": json.dumps(SCHEMA)}) == [expected]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_json_and_text_around_it_makes_it_none(value: Any) -> None:
    text = json.dumps(value)
    assert score([text, f"Here: {text}"], jsonSchema={"jsonSchema": "{}"}) == [1, 0]


@pytest.mark.parametrize(
    "schema",
    [
        "no json",
        '{"type": "text"}',
        '{"pattern": "("}',
        '{"pattern": "(?=a)"}',
        '{"patternProperties": {"a": true}}',
        '{"$ref": "https://example.com/schema"}',
        '{"items": {"$ref": "#/$defs/absent"}}',
    ],
)
def test_a_wrong_schema_is_said_before_training(schema: str) -> None:
    reward = Reward.model_validate({"name": "form", "jsonSchema": {"jsonSchema": schema}})
    with pytest.raises(UserError, match="reward form"):
        check_rewards([reward])


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)


@given(NUMBERS, st.sampled_from(["{:,}", "{:f}", "{:e}"]), st.sampled_from(["", ".", " apples", "$."]))
def test_the_last_number_is_found_however_it_is_written(number: Decimal, form: str, after: str) -> None:
    text = f"First 12, then 5-3 of H2O: {form.format(number)}{after}"
    assert last_number(text) == number
    assert last_number(f"{text} or {number:f} %") == number / 100


@given(st.text(alphabet="0123456789.,-+eE% x\u2212", max_size=60))
def test_whatever_is_written_is_a_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or found.is_finite()
    assert score([text], ["3"], numeric={"tolerance": 0.5}) in ([0], [1])


@pytest.mark.parametrize(
    ("text", "answer", "tolerance", "expected"),
    [
        ("so 1,234.50", "1234.5", 0, 1),
        ("72", "#### 72", 0, 1),
        ("3.14", "3.1416", 0.01, 1),
        ("3.14", "3.1416", 0.001, 0),
        ("12 %", "0.12", 0, 1),
        ("minus \u22125", "-5", 0, 1),
        ("1e3", "1000", 0, 1),
        ("1e999999999999", "1", 1, 0),
        ("none", "1", 1, 0),
        ("version 1.2.3", "1.2", 0, 1),
    ],
)
def test_numeric(text: str, answer: str, tolerance: float, expected: float) -> None:
    assert score([text], [answer], numeric={"tolerance": tolerance}) == [expected]


@given(st.integers(0, 500), st.integers(0, 100), st.integers(1, 100))
def test_length(length: int, shortest: int, more: int) -> None:
    spec = LengthReward(min_tokens=shortest, max_tokens=shortest + more)
    worth = length_score(length, spec)
    assert 0 <= worth <= 1
    if length <= shortest:
        assert worth == (length / shortest if shortest else 1)
    elif length <= spec.max_tokens:
        assert worth == 1
    else:
        assert worth == pytest.approx(max(0, 2 - length / spec.max_tokens))


def test_length_counts_no_special_tokens() -> None:
    function = build(length={"minTokens": 2, "maxTokens": 3})
    assert function(prompts=["?"] * 2, completions=["", ""], completion_ids=[[5, END], [5, 6, END]]) == [
        0.5,
        1,
    ]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's."""
    module = ModuleType("users_rewards")
    monkeypatch.setitem(sys.modules, "users_rewards", module)
    return module


def test_a_function_sees_what_trl_gives_and_may_abstain(module: ModuleType) -> None:
    seen = {}

    async def judge(**arguments: Any) -> list[float | None]:
        seen.update(arguments)
        return [1, None]

    module.judge = judge  # type: ignore[attr-defined]
    function = build(function={"name": "users_rewards:judge"})
    scores = function(
        prompts=["a", "b"], completions=["c", "d"], completion_ids=[[1], [2]], answer=["e", None]
    )
    assert scores == [1.0, None]
    assert seen == {
        "prompts": ["a", "b"],
        "completions": ["c", "d"],
        "completion_ids": [[1], [2]],
        "answer": ["e", None],
    }


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], "1 numbers for 2 answers"),
        (3, "gave int for 2 answers"),
        ([1.0, math.nan], "nan, which is not a finite number"),
        ([1.0, "good"], "'good', which is not a finite number"),
        (ZeroDivisionError("oh"), "failed with ZeroDivisionError: oh"),
    ],
)
def test_a_function_that_gives_no_numbers_is_named(module: ModuleType, result: Any, message: str) -> None:
    def judge(**_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    module.judge = judge  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message) as caught:
        score(["a", "b"], function={"name": "users_rewards:judge"})
    assert "reward good" in caught.value.message


@pytest.mark.parametrize("name", ["nowhere_at_all:judge", "json:absent", "json"])
def test_a_function_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match="reward good"):
        build(function={"name": name})


def require_answers(rewards: list[Reward], rows: list[dict[str, str]]) -> None:
    rewarded = RewardedRows(rewards)
    rewarded.update(rows[:2])
    rewarded.update(rows[2:])
    rewarded.require_answers()


def test_rows_without_the_answer_that_a_reward_needs() -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b"}, {"prompt": "c", "answer": "none"}]
    for kind, missing in (("exact", 1), ("numeric", 2)):
        reward = Reward.model_validate({"name": "right", kind: {}})
        with pytest.raises(DataError, match=f"{missing} of 3 rows have none"):
            require_answers([reward], rows)
    require_answers([Reward.model_validate({"name": "right", "exact": {}})], rows[:1])
    require_answers([], rows)


def test_names_are_given_once() -> None:
    rewards = [Reward.model_validate({"name": "same", "exact": {}})] * 2
    with pytest.raises(UserError, match="2 rewards are named same"):
        check_rewards(rewards)
