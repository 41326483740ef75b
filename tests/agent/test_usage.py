"""Tokens of answers, however they are cut into pieces, and the event that clients did not ask for."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.metrics import Usage
from tunesmith_agent.telemetry.usage import AnswerReader, ask_for_usage

CHAT = b"/v1/chat/completions"
COUNTS = {"prompt_tokens": 40, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 32}}
#: What a model may write to be taken for something else.
TEXTS = st.sampled_from(
    ["yes", '"usage":{"prompt_tokens":1}', '"choices":[]', "data: x\n\n", '{"finish_reason":"stop"}', "\\", "ü" * 50]
)  # fmt: skip


def event(body: dict[str, Any], *, compact: bool = True) -> bytes:
    """One event of a stream."""
    separators = (",", ":") if compact else (", ", ": ")
    return b"data: %b\n\n" % json.dumps(body, separators=separators, ensure_ascii=False).encode()


def text_event(text: str, reason: str | None = None) -> bytes:
    """One event with a piece of text."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})


def read(pieces: list[bytes], *, is_stream: bool, hides_usage: bool = False) -> tuple[bytes, AnswerReader]:
    """All that is passed on, and the reader."""
    reader = AnswerReader(hides_usage, reads_reasons=True)
    reader.is_stream = is_stream
    return b"".join([*map(reader.read, pieces), reader.end()]), reader


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Pieces of some bytes."""
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), places=st.lists(st.integers(0, 900), max_size=8))
def test_the_event_with_the_counts_is_hidden_and_nothing_else(texts: list[str], places: list[int]) -> None:
    shown = b"".join([*map(text_event, texts), text_event("", "length")])
    counts = event({"choices": [], "usage": COUNTS})
    passed, reader = read(cut(shown + counts + b"data: [DONE]\n\n", places), is_stream=True, hides_usage=True)
    assert passed == shown + b"data: [DONE]\n\n"
    assert reader.usage() == Usage(40, 7, 32)


@pytest.mark.parametrize("both", [False, True])
def test_a_stream_may_be_cut_at_any_byte(both: bool) -> None:
    """Also between the two line ends of an event: an event must not become a part of the next one."""
    shown = text_event("yes", "stop") + b": ping\n\n"
    stream = shown + event({"choices": [], "usage": COUNTS}) + b"data: [DONE]\n\n"
    for place in range(len(stream)):
        places = [place, place + 1] if both else [place]
        passed, reader = read(cut(stream, places), is_stream=True, hides_usage=True)
        assert passed == shown + b"data: [DONE]\n\n", place
        assert reader.usage() == Usage(40, 7, 32)


#: An empty line behind a line, each with one of the three ends that lines may have.
EVENT_ENDS = [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\n\r", b"\n\r", b"\r\r\n"]


def ended(events: list[bytes], ends: list[bytes]) -> list[bytes]:
    """Events that end otherwise, in turn."""
    return [each[:-2] + ends[number % len(ends)] for number, each in enumerate(events)]


@pytest.mark.parametrize("end", EVENT_ENDS)
@pytest.mark.parametrize("is_last", [False, True])
def test_events_may_end_in_every_way_and_be_cut_at_any_byte(end: bytes, is_last: bool) -> None:
    first, ping, counts, done = ended(
        [
            text_event("yes", "stop"),
            b": ping\n\n",
            event({"choices": [], "usage": COUNTS}),
            b"data: [DONE]\n\n",
        ],
        [end],
    )
    rest = b"" if is_last else done
    stream = first + ping + counts + rest
    for place in range(len(stream)):
        for width in range(4):
            pieces = cut(stream, [place, place + width])
            passed, reader = read(pieces, is_stream=True, hides_usage=True)
            assert passed == first + ping + rest, (place, width)
            assert reader.usage() == Usage(40, 7, 32)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4),
    ends=st.lists(st.sampled_from(EVENT_ENDS), min_size=1, max_size=3),
    places=st.lists(st.integers(0, 900), max_size=8),
)
def test_the_event_is_hidden_however_others_end(
    texts: list[str], ends: list[bytes], places: list[int]
) -> None:
    counts, done = event({"choices": [], "usage": COUNTS}), b"data: [DONE]\n\n"
    events = ended([*map(text_event, texts), text_event("", "length"), counts, done], ends)
    passed, reader = read(cut(b"".join(events), places), is_stream=True, hides_usage=True)
    assert passed == b"".join([*events[:-2], events[-1]])
    assert reader.usage() == Usage(40, 7, 32)
    assert reader.finish_reasons()[-1] == "length"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_token_is_passed_on_as_soon_as_it_has_come(line_end: bytes) -> None:
    reader = AnswerReader(hides_usage=True, reads_reasons=False)
    reader.is_stream = True
    for text in ("a", "b", "c"):
        token = text_event(text).replace(b"\n", line_end)
        assert reader.read(token) == token


@pytest.mark.parametrize("hides_usage", [False, True])
@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"message": "x", "type": "InternalServerError", "param": None, "code": 500}, True),
        ({"message": "x", "type": "BadRequestError", "param": None, "code": 400}, False),
        ({"message": '"code": 400,', "code": 503}, True),
        ({"message": "x"}, True),
    ],
)
def test_an_error_of_the_engine_within_a_stream(
    hides_usage: bool, error: dict[str, Any], failed: bool
) -> None:
    stream = text_event("yes") + event({"error": error}, compact=False) + b"data: [DONE]\n\n"
    for before, step in ((b"", 1), (text_event("x" * 16_300), 9)):
        for place in range(0, len(stream), step):
            pieces = [before + stream[:place], stream[place:]]
            passed, reader = read(pieces, is_stream=True, hides_usage=hides_usage)
            reader.usage()
            assert (passed, reader.failed) == (before + stream, failed), place


def test_what_models_and_clients_write_is_no_error_of_the_engine() -> None:
    said = text_event('data: {"error": {"code": 500}}')
    asked = event({"response": {"tools": [{"parameters": {"error": {"code": 500}}}]}})
    _, reader = read([said, asked], is_stream=True)
    reader.usage()
    assert not reader.failed


def test_counts_that_a_client_wrote_into_a_tool_are_none() -> None:
    """A response begins with its request: schemas are repeated as they are."""
    tools = [{"name": "x", "parameters": {"usage": {"input_tokens": 1, "output_tokens": 1}}}]
    created = event({"type": "response.created", "response": {"tools": tools, "usage": None}})
    for place in range(len(created)):
        _, reader = read([*cut(created, [place]), b"x" * 20_000], is_stream=True)
        assert reader.usage() is None, place
    long = event({"response": {"tools": [*tools, {"name": "y" * 20_000}], "usage": None}})
    _, reader = read(
        [long[:17_000], long[17_000:], b"event: response.output_text.delta\n" * 1000], is_stream=True
    )
    assert reader.usage() is None


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), places=st.lists(st.integers(0, 900), max_size=8))
def test_a_client_that_asked_sees_it(texts: list[str], places: list[int]) -> None:
    stream = b"".join([*map(text_event, texts), event({"choices": [], "usage": COUNTS})])
    passed, reader = read(cut(stream, places), is_stream=True)
    assert (passed, reader.usage()) == (stream, Usage(40, 7, 32))


@given(text=TEXTS, places=st.lists(st.integers(0, 900), max_size=8), compact=st.booleans())
def test_an_answer_in_one_piece(text: str, places: list[int], compact: bool) -> None:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "tool_calls"}], "usage": COUNTS}
    separators = (",", ":") if compact else (", ", ": ")
    answer = json.dumps({**body, "prompt_token_ids": list(range(300))}, separators=separators).encode()
    passed, reader = read(cut(answer, places), is_stream=False)
    assert (passed, reader.usage()) == (answer, Usage(40, 7, 32))


@given(
    before=st.integers(0, 40_000),
    after=st.integers(0, 40_000),
    places=st.lists(st.integers(0, 90_000), max_size=8),
)
def test_counts_in_the_middle_of_a_long_answer(before: int, after: int, places: list[int]) -> None:
    """With token IDs, which may be long, behind them."""
    answer = b'{"choices":["%b"],"usage":%b,"ids":"%b"}' % (
        b"a" * before, json.dumps(COUNTS, separators=(",", ":")).encode(), b"b" * after,
    )  # fmt: skip
    passed, reader = read(cut(answer, places), is_stream=False)
    assert (passed, reader.usage()) == (answer, Usage(40, 7, 32))


def test_a_piece_is_not_kept_back_without_need() -> None:
    reader = AnswerReader(hides_usage=True, reads_reasons=False)
    reader.is_stream = True
    for piece in (b": ping\n\n", text_event("a")[:-5], b"half of anything", b"x" * 10_000):
        assert reader.read(piece) == piece


@pytest.mark.parametrize("hides_usage", [False, True])
def test_a_finish_reason_is_read_once_wherever_it_is_cut(hides_usage: bool) -> None:
    for before in (b"", text_event("x" * 16_300)):
        stream = before + text_event("yes", "function_call") + text_event("no", "stop")
        for place in range(len(before), len(stream)):
            _, reader = read(cut(stream, [place]), is_stream=True, hides_usage=hides_usage)
            reader.usage()
            assert reader.finish_reasons() == ("function_call", "stop"), place


def test_finish_reasons_are_words_of_a_list() -> None:
    _, reader = read([text_event("", "stop"), text_event("", "my_secret")], is_stream=True)
    reader.usage()
    assert reader.finish_reasons() == ("stop", "other")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}},
            Usage(3, 4, 2),
        ),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": -1, "prompt_tokens_details": []}, Usage(5, 0, 0)),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": 10**12}, None),
        (None, None),
        ([], None),
    ],
)
def test_forms_of_usage(usage: object, expected: Usage | None) -> None:
    _, reader = read([json.dumps({"usage": usage}).encode()], is_stream=False)
    assert reader.usage() == expected


@pytest.mark.parametrize(
    ("body", "hidden", "options"),
    [
        ({"stream": True}, True, {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": True}}, False, {"include_usage": True}),
        (
            {"stream": True, "stream_options": {"include_usage": False, "continuous_usage_stats": True}},
            True,
            {"include_usage": True, "continuous_usage_stats": False},
        ),
        ({"stream": True, "stream_options": "no"}, False, "no"),
        ({"stream": False}, False, None),
        ({}, False, None),
    ],
)
def test_what_is_asked_of_the_engine(body: dict[str, Any], hidden: bool, options: object) -> None:
    assert ask_for_usage(CHAT, body) is hidden
    assert body.get("stream_options") == options


def test_other_paths_have_no_options() -> None:
    body = {"stream": True}
    assert not ask_for_usage(b"/v1/responses", body)
    assert body == {"stream": True}
