"""What a request may say: fields, their bounds, endpoints, and the header that asks for a version."""

import json
import re
import time
from typing import Annotated, Any, Literal, get_type_hints

import openai.types
import openai.types.chat.completion_create_params
import openai.types.completion_create_params
import openai.types.embedding_create_params
import openai.types.responses.response_create_params
import pytest
from agents.agent_harness import Running, Storage
from agents.wire import once, post
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tunesmith_agent.http.messages import Refusal
from tunesmith_agent.requests.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, build_endpoints
from tunesmith_agent.requests.expansion import measure
from tunesmith_agent.requests.model_name import resolve_model
from tunesmith_agent.requests.schemas import MAX_REGEX_STATES, count_states
from tunesmith_agent.requests.switches import apply_switches
from tunesmith_contract.agent import IGNORED_HEADER, VERSION_HEADER, DesiredAlias, Version, served_name
from tunesmith_contract.answer_formats import ChatFormat

ENDPOINTS = build_endpoints(["images.example.com"])
MESSAGE = {"role": "user", "content": "Lunch"}
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

#: A small body that each endpoint serves.
PLAIN: dict[bytes, dict[str, Any]] = {
    CHAT: {"model": "a", "messages": [MESSAGE]},
    COMPLETIONS: {"model": "a", "prompt": "Lunch"},
    RESPONSES: {"model": "a", "input": "Lunch"},
    EMBEDDINGS: {"model": "a", "input": "Lunch"},
}


def refusal(path: bytes, **fields: Any) -> str:
    """Message about a body with further fields; empty if it is served."""
    found = ENDPOINTS[path].check({**PLAIN[path], **fields})
    assert found is None or (found.status, found.param in {**PLAIN[path], **fields}) == (400, True)
    return "" if found is None else found.message


def images(*urls: str) -> list[dict[str, Any]]:
    """Messages with one part for each URL."""
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]


def schema(**members: Any) -> dict[str, Any]:
    """Format of an answer by a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": members}}


def deep(levels: int) -> dict[str, Any]:
    """A schema of so many levels."""
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"items": found}
    return found


def wide(members: int, *, required: bool = False, value: Any = None) -> dict[str, Any]:
    """A schema of an object with so many members."""
    names = [f"m{number}" for number in range(members)]
    inner = {"type": "string"} if value is None else value
    return {
        "type": "object",
        "properties": dict.fromkeys(names, inner),
        "required": names if required else [],
    }


def chain(length: int, members: int = 2, *, required: bool = True) -> dict[str, Any]:
    """A schema whose definitions name the next one several times each."""
    definitions = {
        f"d{number}": wide(members, required=required, value={"$ref": f"#/$defs/d{number + 1}"})
        for number in range(length)
    }
    return {"$defs": {**definitions, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


#: As pydantic writes a model that holds a list of itself.
TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["name", "children"],
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {}),
        (COMPLETIONS, {}),
        (RESPONSES, {}),
        (EMBEDDINGS, {}),
        (CHAT, {"n": 16, "temperature": 0.2, "stop": "x", "seed": 1, "user": "u", "logprobs": True}),
        (CHAT, {"messages": images("data:image/png;base64,AAAA", "https://images.example.com/a.png?b=c")}),
        (CHAT, {"messages": images("HTTPS://Images.Example.com:8443/a")}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
        (CHAT, {"response_format": {"type": "json_object"}}),
        (CHAT, {"response_format": schema(properties={"pattern": {"type": "string"}})}),
        (CHAT, {"response_format": schema(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$")}),
        (CHAT, {"response_format": schema(**TREE)}),
        (CHAT, {"response_format": schema(**chain(8))}),
        (CHAT, {"response_format": schema(**chain(40, 1))}),
        (CHAT, {"response_format": schema(**wide(200))}),
        (CHAT, {"response_format": schema(**wide(1_000, required=True))}),
        (CHAT, {"response_format": schema(**wide(20), patternProperties={"^x-": {}})}),
        (CHAT, {"response_format": schema(**{"$ref": "#/$defs/missing"})}),
        (CHAT, {"response_format": schema(**{"$ref": "#anchor"})}),
        (CHAT, {"tools": [tool(wide(30))] * 64, "tool_choice": "required"}),
        (CHAT, {"structured_outputs": {"choice": ["yes", "no"]}}),
        (CHAT, {"structured_outputs": {"json": '{"type": "object"}'}}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
        (CHAT, {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "priority": 0}),
        (CHAT, {"chat_template": None, "a_new_field": None}),
        (COMPLETIONS, {"prompt": ["a"] * 4, "n": 16}),
        (COMPLETIONS, {"prompt": [1, 2, 3], "n": 16, "echo": True}),
        (COMPLETIONS, {"prompt": [[1], [2]], "best_of": 1, "suffix": ""}),
        (EMBEDDINGS, {"input": ["a"] * 1024, "encoding_format": "base64"}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}),
        (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}),
        (RESPONSES, {"store": False, "background": False, "text": {"format": {"type": "text"}}}),
    ],
)
def test_what_is_served(path: bytes, fields: dict[str, Any]) -> None:
    assert refusal(path, **fields) == ""


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (CHAT, {"n": 17}, "n must be an integer from 1 to 16."),
        (CHAT, {"n": True}, "n must be an integer"),
        (CHAT, {"n": "3"}, "n must be an integer"),
        (CHAT, {"n": 3.0}, "n must be an integer"),
        (CHAT, {"temprature": 1}, "'temprature' is not known here: write temperature."),
        (CHAT, {"qqqq": 1}, "'qqqq' is not known here: leave it out."),
        (CHAT, {"prompt_logprobs": 0}, "prompt_logprobs is not served"),
        (CHAT, {"prompt_logprob_token_ids": [1]}, "is not known here"),
        (CHAT, {"echo": True}, "echo must be false here, or be left out."),
        (CHAT, {"top_logprobs": -1, "logprobs": True}, "top_logprobs must be an integer from 0 to 20."),
        (CHAT, {"chat_template": "{{ x }}"}, "chat_template is not served: conversations are rendered as"),
        (CHAT, {"logits_processors": ["os.system"]}, "logits_processors is not served"),
        (CHAT, {"kv_transfer_params": {}}, "kv_transfer_params is not served"),
        (CHAT, {"vllm_xargs": {"a": 1}}, "vllm_xargs is not served"),
        (CHAT, {"priority": -1}, "priority must be 0 here"),
        (CHAT, {"priority": False}, "priority must be 0 here"),
        (CHAT, {"store": True}, "store must be false here"),
        (CHAT, {"use_beam_search": True}, "use_beam_search must be false here"),
        (CHAT, {"guided_json": {}}, "guided_json is not served: write structured_outputs"),
        (CHAT, {"functions": []}, "functions is not served: write tools."),
        (CHAT, {"modalities": ["audio"]}, 'modalities must be ["text"] here'),
        (CHAT, {"request_id": "1"}, "request_id is not served: send the header x-request-id."),
        (CHAT, {"messages": "x"}, "messages must be a list of at most"),
        (CHAT, {"messages": images("http://169.254.169.254/latest/meta-data")}, "may not fetch from"),
        (CHAT, {"messages": images("https://images.example.com.evil.org/a")}, "may not fetch from"),
        (CHAT, {"messages": images("https://images.example.com@10.0.0.1/a")}, "is not served: send data:"),
        (CHAT, {"messages": images("https://10.0.0.1\\@images.example.com/a")}, "is not served: send data:"),
        (CHAT, {"messages": images("file:///etc/passwd")}, "is not served: send data:"),
        (CHAT, {"messages": images(*["data:image/png;base64,AAAA"] * 17)}, "at most 16 images"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [PIXEL | {"uuid": "1"}]}]},
            "can't have a part with",
        ),
        (CHAT, {"messages": [{"role": "user", "content": [{"image_url": "http://x/"}]}]}, "part with"),
        (
            CHAT,
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "", "image_url": "http://x/"}]}
                ]
            },
            "can't have a part with 'image_url'",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_embeds", "image_embeds": "x"}]}]},
            "part",
        ),
        (
            CHAT,
            {"response_format": {"type": "structural_tag", "format": {}}},
            "response_format must be an object",
        ),
        (CHAT, {"response_format": schema(pattern="(a{200}){200}")}, "more than 4,096 states"),
        (CHAT, {"response_format": schema(pattern="a" * 600)}, "at most 512 characters"),
        (CHAT, {"response_format": schema(patternProperties={"(a{99}){99}": {}})}, "more than 4,096 states"),
        (CHAT, {"response_format": schema(maxItems=100_000)}, "maxItems above 4,096"),
        (
            CHAT,
            {"response_format": schema(**{"$ref": "https://example.com/x"})},
            "a $ref to another document",
        ),
        (CHAT, {"response_format": schema(enum=["x"] * 5_000)}, "more than 4,096 members"),
        (CHAT, {"response_format": schema(enum=["x" * 70_000])}, "more than 65,536 characters"),
        (CHAT, {"response_format": schema(**deep(40))}, "more than 32 levels"),
        (
            CHAT,
            {"response_format": schema(**chain(20))},
            "more than 100,000 members with each $ref written out",
        ),
        (CHAT, {"structured_outputs": {"json": json.dumps(chain(20))}}, "members with each $ref written out"),
        (
            CHAT,
            {"response_format": schema(**chain(60, 1))},
            "more than 128 levels with each $ref written out",
        ),
        (CHAT, {"response_format": schema(**{"$ref": "#"})}, "a $ref that leads back to itself"),
        (
            CHAT,
            {"response_format": schema(**chain(3, 1), anyOf=[{"$ref": "#/anyOf/0"}])},
            "a $ref that leads back to itself",
        ),
        (
            CHAT,
            {"response_format": schema(**TREE, patternProperties={"a": {}})},
            "patternProperties and a recursive $ref",
        ),
        (
            CHAT,
            {"response_format": schema(**chain(3, 30, required=False), patternProperties={"a": {}})},
            "members with each $ref written out",
        ),
        (
            CHAT,
            {"response_format": schema(**wide(300))},
            "more than 256 members of an object that may be left out",
        ),
        (
            CHAT,
            {"response_format": schema(properties={"a": wide(200), "b": wide(200)})},
            "more than 256 members of an object that may be left out",
        ),
        (
            CHAT,
            {"response_format": schema(items=[{"pattern": "a{4000}"}] * 9)},
            "more than 32,768 states in its regular expressions",
        ),
        (
            CHAT,
            {"tools": [tool(wide(120, required=True))] * 100, "tool_choice": "required"},
            "tools has a schema of more than 16,384 members",
        ),
        (CHAT, {"structured_outputs": {"grammar": "root ::= root root"}}, "structured_outputs with grammar"),
        (CHAT, {"structured_outputs": {"regex": "(a{99}){99}"}}, "more than 4,096 states"),
        (CHAT, {"structured_outputs": {"jsn": {}}}, "has no member 'jsn'"),
        (CHAT, {"structured_outputs": {"json": "{"}}, "must be a JSON schema"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "the engine calls no tools itself"),
        (
            CHAT,
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": deep(40)}}],
                "tool_choice": "required",
            },
            "tools has a schema of more than 32 levels",
        ),
        (
            CHAT,
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "strict": True, "parameters": deep(40)}}
                ]
            },
            "tools has a schema of more than 32 levels",
        ),
        (COMPLETIONS, {"prompt": ["a"] * 65}, "prompt must be a text"),
        (COMPLETIONS, {"prompt": []}, "prompt must be a text"),
        (COMPLETIONS, {"prompt": ["a"] * 5, "n": 16}, "n times the number of prompts must be at most 64."),
        (COMPLETIONS, {"echo": True, "logprobs": 1}, "echo is not served with logprobs"),
        (COMPLETIONS, {"echo": True, "max_tokens": 0}, "echo is not served with logprobs"),
        (COMPLETIONS, {"best_of": 4}, "best_of must be 1 here"),
        (COMPLETIONS, {"prompt_embeds": "x"}, "prompt_embeds is not served"),
        (EMBEDDINGS, {"input": ["a"] * 1025}, "input must be a text"),
        (EMBEDDINGS, {"temperature": 1}, "'temperature' is not known here"),
        (RESPONSES, {"previous_response_id": "resp_1"}, "no pod keeps answers"),
        (RESPONSES, {"conversation": "conv_1"}, "no pod keeps answers"),
        (RESPONSES, {"background": True}, "background must be false here"),
        (RESPONSES, {"store": True}, "store must be false here"),
        (
            RESPONSES,
            {"tools": [{"type": "mcp", "server_url": "http://x"}]},
            "the engine calls no tools itself",
        ),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "an item of type 'item_reference'"),
        (RESPONSES, {"input": [{"type": {}}]}, "an item of type"),
        (
            RESPONSES,
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/"}]}
                ]
            },
            "may not fetch from",
        ),
        (
            RESPONSES,
            {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "1"}]}]},
            "can't have a part with",
        ),
        (
            RESPONSES,
            {"text": {"format": {"type": "json_schema", "json_schema": {}, "schema": deep(40)}}},
            "text has a schema of more than 32 levels",
        ),
        (CHAT, {"stream": 1}, "stream must be true or false"),
        (COMPLETIONS, {"stream": "true"}, "stream must be true or false"),
        (RESPONSES, {"stream": "yes"}, "stream must be true or false"),
        (CHAT, {"stream_options": {"include_usage": "off"}}, "each true or false"),
        (COMPLETIONS, {"stream_options": {"include_usage": 0}}, "each true or false"),
        (CHAT, {"structured_outputs": {"regex": "((a{9999}){9999}){0,0}"}}, "more than 4,096 states"),
        (CHAT, {"structured_outputs": {"regex": "(?x)a{ 99999 }"}}, "more than 4,096 states"),
        (CHAT, {"messages": images("https://images.example.\u212aom/x.png")}, "not served"),
        (CHAT, {"messages": images("https://\u017fervices.example.com/x.png")}, "not served"),
    ],
)
def test_what_is_refused(path: bytes, fields: dict[str, Any], message: str) -> None:
    assert message in refusal(path, **fields)


class Money(BaseModel):
    amount: Annotated[str, Field(pattern=r"^\d{1,12}\.\d{2}$")]
    currency: Literal["EUR", "USD"]


class Item(BaseModel):
    name: Annotated[str, Field(max_length=200)]
    price: Money
    discount: Money | None = None
    parts: list["Item"] = []


class Receipt(BaseModel):
    items: Annotated[list[Item], Field(max_length=100)]
    total: Money
    notes: dict[str, str] = {}


def test_models_of_pydantic_are_served() -> None:
    assert refusal(CHAT, response_format=schema(**Receipt.model_json_schema())) == ""


def written_out(root: Any, node: Any) -> tuple[int, int]:
    """Members and levels of a schema without recursion, by writing it out."""
    if type(node) not in {dict, list}:
        return 0, 0
    inner = list(node.values()) if type(node) is dict else list(node)
    if type(node) is dict and "$ref" in node:
        inner.append(root["$defs"][node["$ref"].removeprefix("#/$defs/")])
    found = [written_out(root, each) for each in inner]
    return 1 + len(node) + sum(each[0] for each in found), 1 + max((each[1] for each in found), default=0)


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=6))
def test_a_schema_is_measured_as_if_it_was_written_out(references: list[list[int]]) -> None:
    """Each definition names later ones."""
    definitions = {
        f"d{number}": {
            "anyOf": [{"$ref": f"#/$defs/d{min(number + 1 + each, len(references))}"} for each in named]
        }
        for number, named in enumerate(references)
    }
    root = {"$defs": {**definitions, f"d{len(references)}": {"type": "string"}}, "$ref": "#/$defs/d0"}
    found = measure(root, repeats_optional=False)
    assert (found.members, found.levels) == written_out(root, root)
    assert not found.recurs and not found.is_endless


@pytest.mark.parametrize(
    "bad",
    [chain(600, 1), chain(250, 4), wide(1_300, value={"$ref": "#"}),
     {"prefixItems": [{"$ref": "#/prefixItems/1"}] * 1_300},
     {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(1_300)}, "$ref": "#/$defs/d0"}],
)  # fmt: skip
def test_a_bad_schema_is_measured_in_a_moment(bad: dict[str, Any]) -> None:
    began = time.process_time()
    assert refusal(CHAT, response_format=schema(**bad)) != ""
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["guided_jsn", "prompt_logprob", "function_calls"])
def test_no_field_is_advised_that_would_be_refused(name: str) -> None:
    advised = re.search(r"write (\w+)\.", refusal(CHAT, **{name: 1}))
    assert advised is None or "is not served" not in refusal(CHAT, **{advised[1]: 1})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(data=st.data(), path=st.sampled_from(sorted(PLAIN)))
def test_any_value_of_any_field_gets_an_answer(data: st.DataObject, path: bytes) -> None:
    name = data.draw(st.sampled_from(sorted(ENDPOINTS[path].fields)))
    found = ENDPOINTS[path].check({**PLAIN[path], name: data.draw(JSON_VALUES)})
    assert found is None or (found.status == 400 and found.message.endswith("."))


@given(
    st.recursive(
        st.just({}) | st.text(max_size=4),
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "type": inner,
                "role": inner,
                "content": st.lists(inner),
                "image_url": inner,
                "output": inner,
            },
        ),
        max_leaves=8,
    ),
    st.sampled_from([(CHAT, "messages"), (RESPONSES, "input")]),
)
def test_no_media_from_elsewhere_gets_through(part: Any, target: tuple[bytes, str]) -> None:
    path, name = target
    hidden = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}
    message = {"role": "user", "content": [part, hidden]}
    assert ENDPOINTS[path].check({**PLAIN[path], name: [message]}) is not None


@given(st.text("()[]{}*+?|\\^$,0123456789ab", max_size=512))
def test_states_of_an_expression_are_counted_in_a_moment(regex: str) -> None:
    began = time.process_time()
    assert count_states(regex) >= 0
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("regex", "states"),
    [("abc", 3), ("a{3}", 3), ("(ab){3,5}", 10), ("[a-z]{2}", 2), (r"\d{4}-\d{2}", 7), ("[]a]{3}", 3),
     ("((a{9}){9}){9}", 729), ("(ab|c)*", 3), (r"\({3}", 3), ("[^]a]", 1), ("a{2,}", 2), ("a{}", 1), ("{,}", 0)],
)  # fmt: skip
def test_states(regex: str, states: int) -> None:
    assert count_states(regex) == states
    assert states < MAX_REGEX_STATES


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (CHAT, openai.types.chat.completion_create_params.CompletionCreateParamsBase),
        (CHAT, openai.types.chat.completion_create_params.CompletionCreateParamsStreaming),
        (COMPLETIONS, openai.types.completion_create_params.CompletionCreateParamsBase),
        (EMBEDDINGS, openai.types.embedding_create_params.EmbeddingCreateParams),
        (RESPONSES, openai.types.responses.response_create_params.ResponseCreateParamsBase),
    ],
)
def test_every_field_of_openai_is_listed(path: bytes, parameters: type) -> None:
    """A field of a later release of their client is judged before clients send it."""
    assert set(get_type_hints(parameters)) - set(ENDPOINTS[path].fields) == set()


NAME = "expenses@0123456789ab"


@pytest.mark.parametrize(
    ("model", "version", "name"),
    [
        ("expenses", NAME, NAME),
        ("expenses", "0123456789ab", NAME),
        ("expenses", "expenses", "expenses"),
        (NAME, NAME, NAME),
        (NAME, "0123456789ab", NAME),
        ("base", "base", "base"),
    ],
)
def test_version_by_header(model: str, version: str, name: str) -> None:
    assert resolve_model(model, version.encode()) == name


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("taxes", NAME),
        (NAME, "expenses@ba9876543210"),
        (NAME, "ba9876543210"),
        (NAME, "expenses"),
        ("expense", NAME),
    ],
)
def test_header_against_model_is_refused(model: str, version: str) -> None:
    found = resolve_model(model, version.encode())
    assert isinstance(found, Refusal)
    assert found.status == 400
    assert VERSION_HEADER in found.message


def nested(levels: int) -> bytes:
    """Lists in each other, as JSON."""
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b'{"model": "expenses", "messages": [{"role": [], "content": "x"}]}'),
        (CHAT, b'{"model": "expenses", "messages": [{"role": {"a": 1}}]}'),
        (CHAT, b'{"model": "expenses", "messages": [{"content": "x", "y": %b}]}' % nested(300)),
        (CHAT, b'{"model": "expenses", "user": "ada", "metadata": {"x": %b}}' % nested(300)),
        (CHAT, b'{"model": "expenses", "user": "ada", "logit_bias": {"1": %b}}' % nested(1000)),
        (COMPLETIONS, b'{"model": "expenses", "prompt": %b}' % nested(260)),
        (RESPONSES, b'{"model": "expenses", "input": [{"role": [], "content": "x"}]}'),
        (RESPONSES, b'{"model": "expenses", "input": "x", "text": {"verbosity": []}}'),
    ],
)
async def test_no_body_ends_a_connection_without_an_answer(
    agent: Running, storage: Storage, path: bytes, body: bytes
) -> None:
    versions = storage.commit(), storage.commit()
    agent.want(DesiredAlias(name="expenses", stable=versions[0], candidate=versions[1], weight=50))
    await agent.active(*versions)
    answer = await once(agent, post(body, path=path.decode()))
    assert answer.status == 200 or (answer.status == 400 and answer.message)


async def test_a_body_as_deep_as_json_libraries_write_is_served(agent: Running, expenses: Version) -> None:
    body = b'{"model": "expenses", "messages": [{"role": "user", "content": "x", "y": %b}]}'
    assert (await once(agent, post(body % nested(200)))).status == 200
    refused = await once(agent, post(body % nested(400)))
    assert (refused.status, "nested" in refused.message) == (400, True)


async def test_header_chooses_the_version(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(note="b")
    agent.want(DesiredAlias(name="expenses", stable=stable, candidate=candidate, weight=0))
    await agent.active(stable, candidate)
    body: dict[str, object] = {"model": "expenses", "messages": [MESSAGE]}
    name = served_name("expenses", candidate.digest)
    assert (await once(agent, post(body, f"{VERSION_HEADER}: {name}"))).headers[VERSION_HEADER] == name
    assert (await once(agent, post(body))).headers[VERSION_HEADER] == served_name("expenses", stable.digest)
    other = served_name("expenses", stable.digest)
    assert (await once(agent, post({**body, "model": other}, f"{VERSION_HEADER}: {name}"))).status == 400
    gone = await once(agent, post(body, f"{VERSION_HEADER}: ffffffffffff"))
    assert (gone.status, "'expenses@ffffffffffff' does not exist here" in gone.message) == (404, True)


async def test_an_endpoint_that_the_engine_has_not(agent: Running, expenses: Version) -> None:
    answer = await once(agent, post({"model": "expenses", "input": "x"}, path="/v1/embeddings"))
    assert answer.status == 404
    assert "does not offer /v1/embeddings for this base model" in answer.message
    assert agent.state(expenses) == "Active"


async def test_an_endpoint_that_the_engine_has(agent: Running, expenses: Version) -> None:
    body: dict[str, object] = {"model": "expenses", "input": "x"}
    answer = await once(agent, post(body, path="/v1/responses"))
    assert answer.status == 200
    assert agent.engine.requests[-1] == {
        "model": served_name("expenses", expenses.digest),
        "input": "x",
        "store": False,
    }


async def test_no_alias_stands_in_front_of_the_base_model(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.want(DesiredAlias(name="base", stable=version))
    await agent.active(version)
    answer = await once(agent, post({"model": "base", "messages": [MESSAGE]}))
    assert answer.headers[VERSION_HEADER] == "base"


OFF = {"enable_thinking": False}


@pytest.mark.parametrize(
    ("own", "asked", "sent", "ignored"),
    [
        ({}, {}, {}, []),
        (OFF, {}, {"chat_template_kwargs": OFF}, []),
        (OFF, {"chat_template_kwargs": OFF}, {"chat_template_kwargs": OFF}, []),
        (
            OFF,
            {"chat_template_kwargs": {"enable_thinking": True, "more": 1}},
            {"chat_template_kwargs": OFF},
            ["chat_template_kwargs.enable_thinking", "chat_template_kwargs.more"],
        ),
        ({"n": 1}, {"chat_template_kwargs": {"n": True}}, {"chat_template_kwargs": {"n": 1}},
         ["chat_template_kwargs.n"]),
        ({}, {"chat_template_kwargs": None}, {}, []),
        ({}, {"reasoning_effort": "high"}, {}, ["reasoning_effort"]),
        ({}, {"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning": {"summary": "auto"}},
         ["reasoning.effort"]),
        (
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "low"}},
            [],
        ),
    ],
)  # fmt: skip
def test_switches_of_the_version_win(
    own: dict[str, Any], asked: dict[str, Any], sent: dict[str, Any], ignored: list[str]
) -> None:
    body = dict(asked)
    assert apply_switches(body, "chat_template_kwargs", own) == ignored
    assert body == sent


@pytest.mark.parametrize(
    "switches",
    [{"messages": 1}, {"a b": 1}, {"a": {}}, {"a": "x" * 300}, {"x\r\ny": 1}, {str(n): n for n in range(17)}],
)
def test_switches_that_are_refused(switches: dict[str, Any]) -> None:
    assert refusal(CHAT, chat_template_kwargs=switches).startswith("chat_template_kwargs ")


async def test_a_version_answers_with_the_switches_of_its_training(agent: Running, storage: Storage) -> None:
    trained, old = storage.commit(chat=ChatFormat(switches=OFF)), storage.commit()
    agent.want(DesiredAlias(name="trained", stable=trained), DesiredAlias(name="old", stable=old))
    await agent.active(trained, old)
    asked = {"messages": [MESSAGE], "chat_template_kwargs": {"enable_thinking": True}}
    answer = await once(agent, post({**asked, "model": "trained"}))
    assert (answer.status, answer.headers[IGNORED_HEADER]) == (200, "chat_template_kwargs.enable_thinking")
    assert agent.engine.requests[-1]["chat_template_kwargs"] == OFF
    for model in ("old", "base"):
        answer = await once(agent, post({**asked, "model": model}))
        assert (answer.status, IGNORED_HEADER in answer.headers) == (200, False)
        assert agent.engine.requests[-1]["chat_template_kwargs"] == {"enable_thinking": True}
