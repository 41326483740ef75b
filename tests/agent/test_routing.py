"""Stickiness and weights: monotone, even, and the same in every pod."""

import json
import random
import subprocess
import sys
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.metrics import VersionStats
from tunesmith_agent.routing.gate import Gate
from tunesmith_agent.routing.stickiness import bucket, stickiness_key, threshold
from tunesmith_agent.routing.table import Route, build_target
from tunesmith_contract.agent import BUCKETS

STABLE, CANDIDATE = "sha256:" + "a" * 64, "sha256:" + "b" * 64
WEIGHTS = st.integers(0, 100)


def route(weight: int) -> Route:
    stable = build_target("a", STABLE, VersionStats("a", STABLE), Gate())
    candidate = build_target("a", CANDIDATE, VersionStats("a", CANDIDATE), Gate())
    return Route("a", stable, candidate, CANDIDATE, threshold(weight))


def goes_to_candidate(weight: int, key: bytes) -> bool:
    target = route(weight).pick(key)
    assert target is not None
    return target.stats.digest == CANDIDATE


@given(key=st.binary(), weights=st.tuples(WEIGHTS, WEIGHTS).map(sorted))
def test_growing_weight_moves_nobody_back(key: bytes, weights: list[int]) -> None:
    low, high = (goes_to_candidate(weight, key) for weight in weights)
    assert high or not low


@given(st.binary())
def test_ends_of_the_scale(key: bytes) -> None:
    assert not goes_to_candidate(0, key)
    assert goes_to_candidate(100, key)


@pytest.mark.parametrize("weight", [1, 5, 25, 50, 90])
def test_split_is_the_weight(weight: int) -> None:
    """Within five standard deviations of a binomial: the keys are fixed, so it passes always or never."""
    draws, share, seed = 20_000, weight / 100, random.Random(7)
    hits = sum(goes_to_candidate(weight, str(seed.random()).encode()) for _ in range(draws))
    assert abs(hits - draws * share) < 5 * sqrt(draws * share * (1 - share))


def test_candidates_are_independent() -> None:
    """Who met one candidate first is not who meets the next one first."""
    keys = [str(number).encode() for number in range(20_000)]
    both = sum(bucket(STABLE, "a", key) < 5000 and bucket(CANDIDATE, "a", key) < 5000 for key in keys)
    assert abs(both - 5000) < 5 * sqrt(20_000 * 0.25 * 0.75)


def test_same_bucket_in_another_process() -> None:
    code = f"from tunesmith_agent.routing.stickiness import bucket; print(bucket({STABLE!r}, 'a', b'key'))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert int(other.stdout) == bucket(STABLE, "a", b"key") == 190
    assert 0 <= bucket(STABLE, "a", b"") < BUCKETS


SYSTEM = {"role": "system", "content": "You are terse."}
ASKED = {"role": "user", "content": "Lunch"}


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({b"x-tunesmith-key": b"h"}, {"safety_identifier": "s", "user": "u"}, b"h"),
        ({}, {"safety_identifier": "s", "prompt_cache_key": "p", "user": "u"}, b"s"),
        ({}, {"prompt_cache_key": "p", "user": "u"}, b"p"),
        ({}, {"user": "u", "messages": [ASKED]}, b"u"),
        ({}, {"user": 3, "prompt": "text"}, b'"text"'),
        ({}, {}, b"null"),
    ],
)
def test_where_the_key_comes_from(headers: dict[bytes, bytes], body: dict[str, object], key: bytes) -> None:
    assert stickiness_key(headers, body) == key


def test_a_conversation_keeps_its_key_and_instructions_do_not_make_one() -> None:
    opening = stickiness_key({}, {"messages": [SYSTEM, ASKED]})
    answer = {"role": "assistant", "content": "Ok"}
    assert stickiness_key({}, {"messages": [SYSTEM, ASKED, answer, ASKED]}) == opening
    assert stickiness_key({}, {"messages": [SYSTEM, answer]}) != opening


JSON = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.lists(st.text(max_size=4))
MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user"]), "content": JSON})


@given(instructions=st.lists(st.just(SYSTEM)), first=JSON, other=JSON, rest=st.lists(JSON | MESSAGES))
def test_any_first_message_alone_makes_the_key(
    instructions: list[object], first: object, other: object, rest: list[object]
) -> None:
    """Also of messages that are not objects, which the engine will refuse."""
    key = stickiness_key({}, {"messages": [*instructions, first, *rest]})
    assert key == stickiness_key({}, {"messages": [first]})
    assert (key == stickiness_key({}, {"messages": [*instructions, other]})) == (
        json.dumps(first) == json.dumps(other)
    )


@given(JSON | st.lists(JSON | MESSAGES, max_size=3))
def test_any_messages_have_the_same_key_in_every_pod(messages: object) -> None:
    key = stickiness_key({}, {"messages": messages})
    assert key
    assert key == stickiness_key({}, json.loads(json.dumps({"messages": messages})))
