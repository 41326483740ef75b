"""Calls of tools: the formats of several templates, and their comparison with expected calls."""

import copy
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers.utils.chat_template_utils import render_jinja_template

from tunesmith_evaluation.metrics.answers import Answer, Call, Expected, Question
from tunesmith_evaluation.metrics.reading import read_answer, read_expected, read_message
from tunesmith_evaluation.metrics.text_scorers import ExactMatch
from tunesmith_evaluation.metrics.tool_call_scorer import ToolCall

TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "stock_level",
            "description": "Pieces of an article.",
            "parameters": {
                "type": "object",
                "properties": {
                    "article": {"type": "string", "description": "Number of the article."},
                    "hall": {"type": "integer", "description": "Number of the hall."},
                },
            },
        },
    },
)
CALL = Call("stock_level", {"article": "7", "hall": 2})
EXPECTED = Expected(tool_calls=(CALL,), row=1)
HERMES = '<tool_call>\n{"name": "stock_level", "arguments": {"article": "7", "hall": 2}}\n</tool_call>'

WRITTEN = {
    "hermes": HERMES,
    "hermes, arguments as text": '<tool_call>{"name": "stock_level", '
    '"arguments": "{\\"hall\\": 2, \\"article\\": \\"7\\"}"}</tool_call>',
    "qwen coder": "<tool_call>\n<function=stock_level>\n<parameter=article>\n7\n</parameter>\n"
    "<parameter=hall>\n2\n</parameter>\n"
    "</function>\n</tool_call>",
    "glm": "<tool_call>stock_level\n<arg_key>article</arg_key>\n<arg_value>7</arg_value>\n<arg_key>hall</arg_key>\n"
    "<arg_value>2</arg_value>\n</tool_call>",
    "llama": '{"name": "stock_level", "parameters": {"article": "7", "hall": 2}}',
    "llama, marked": '<|python_tag|>{"name": "stock_level", "parameters": {"article": "7", "hall": 2}}',
    "python": '[stock_level(article="7", hall=2)]',
    "lfm": '<|tool_call_start|>[stock_level(article="7", hall=2)]<|tool_call_end|>',
    "gemma": '<|tool_call>call:stock_level{article:<|"|>7<|"|>,hall:2}<tool_call|>',
    "mistral": '[TOOL_CALLS][{"name": "stock_level", "arguments": {"article": "7", "hall": 2}}]',
    "mistral, new": '[TOOL_CALLS]stock_level[CALL_ID]abc123456[ARGS]{"article": "7", "hall": 2}',
    "granite": '<|tool_call|>[{"name": "stock_level", "arguments": {"article": "7", "hall": 2}}]',
    "deepseek": "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>"
    "function<\uff5ctool\u2581sep\uff5c>stock_level"
    "\n```json\n"
    '{"article": "7", "hall": 2}\n```<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>',
    "gpt-oss": "<|channel|>analysis<|message|>look it up<|end|><|start|>assistant"
    "<|channel|>commentary to=functions.stock_level "
    '<|constrain|>json<|message|>{"article": "7", "hall": 2}<|call|>',
    "gpt-oss, recipient first": "<|start|>assistant to=functions.stock_level<|channel|>commentary json<|message|>"
    '{"article": "7", "hall": 2}<|call|>',
    "after thinking": f"<think>perhaps {HERMES.replace('2', '3')}</think>\n{HERMES}",
}


def score(answer: Answer, expected: Expected = EXPECTED) -> float | None:
    return ToolCall().score(Question("", tools=TOOLS), expected, answer).value


@pytest.mark.parametrize("raw", WRITTEN.values(), ids=WRITTEN)
def test_each_format_is_read(raw: str) -> None:
    answer = read_answer(raw, tools=TOOLS)
    assert answer.tool_calls == (CALL,)
    assert not answer.malformed_calls
    assert answer.text == ""
    assert score(answer) == 1


#: End of a turn, which answers are without.
ENDS = ("<|im_end|>", "<|eot_id|>", "<|call|>", "<|tool_response>", "<|observation|>", "</s>")


@pytest.mark.parametrize(
    "name",
    ["qwen2_5", "qwen3", "qwen3_5_think", "qwen3_6", "llama3_1", "llama3_2", "glm4moe", "gptoss", "gemma4", "lfm2_v2",
     "nemotron_3_nano"],
)  # fmt: skip
def test_what_a_template_writes_is_read(name: str) -> None:
    template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    arguments = {"article": 'a "b" {c}, d: e', "hall": 2}
    function = {"name": "stock_level", "arguments": arguments}
    user = {"role": "user", "content": "How many are left?"}
    called = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}

    tools: list[Any] = copy.deepcopy(list(TOOLS))

    def render(*messages: Any, begin: bool) -> str:
        rendered: Any = render_jinja_template(
            [[*messages]],
            tools=tools,
            chat_template=template,
            add_generation_prompt=begin,
            bos_token="<s>",
            eos_token="</s>",
        )
        return str(rendered[0][0])

    prompt, whole = render(user, begin=True), render(user, called, begin=False)
    raw = whole.removeprefix(prompt) if whole.startswith(prompt) else whole.partition(user["content"])[2]
    for end in ENDS:
        raw = raw.strip().removesuffix(end)
    assert read_answer(raw, tools=TOOLS).tool_calls == (Call("stock_level", arguments),)


@pytest.mark.parametrize("raw", WRITTEN.values(), ids=WRITTEN)
def test_a_call_that_is_cut_off_is_wrong(raw: str) -> None:
    cut = raw[: raw.rindex("7") + 1]
    assert score(read_answer(cut, tools=TOOLS, truncated=True)) == 0


def test_calls_of_an_endpoint_are_read() -> None:
    function = {"name": "stock_level", "arguments": '{"hall": 2.0, "article": "7"}'}
    message: dict[str, Any] = {
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    assert score(read_message(message, tools=TOOLS)) == 1
    assert read_expected(message, row=1).tool_calls[0].name == "stock_level"
    message["tool_calls"][0]["function"]["arguments"] = '{"hall": 2'
    answer = read_message(message, tools=TOOLS)
    assert answer.malformed_calls == 1
    assert score(answer) == 0
    with pytest.raises(ValueError, match="write both"):
        read_expected(message)


@pytest.mark.parametrize(
    "calls",
    [
        (),
        (CALL, CALL),
        (Call("stock", CALL.arguments),),
        (Call("stock_level", {"article": "7"}),),
        (Call("stock_level", {"article": "7", "hall": 2, "more": 1}),),
        (Call("stock_level", {"article": "7", "hall": True}),),
        (Call("stock_level", {"article": 7, "hall": 2}),),
        (Call("stock_level", ["7", 2]),),
    ],
)
def test_other_calls_are_wrong(calls: tuple[Call, ...]) -> None:
    assert score(Answer("", tool_calls=calls)) == 0


def test_the_order_of_parallel_calls_is_free() -> None:
    first, second = Call("a", {"x": 1}), Call("b", {"x": [1, {"y": None}]})
    expected = Expected(tool_calls=(first, second, first))
    assert score(Answer("", tool_calls=(second, first, first)), expected) == 1
    assert score(Answer("", tool_calls=(second, first, second)), expected) == 0


def test_saying_nothing_is_no_right_answer_where_a_call_is_expected() -> None:
    assert score(read_answer("", tools=TOOLS)) == 0
    assert score(Answer("")) == 0


def test_where_text_is_expected_a_call_is_wrong() -> None:
    expected = Expected("aisle 4")
    assert score(Answer("anything"), expected) == 1
    assert score(Answer(""), expected) == 0
    assert score(Answer("aisle 4", tool_calls=(CALL,)), expected) == 0
    assert ExactMatch().score(Question(""), expected, Answer("aisle 4", tool_calls=(CALL,))).value == 0


def test_other_metrics_refuse_items_whose_answer_is_a_call() -> None:
    assert (
        ExactMatch().check(EXPECTED)
        == "the expected answer of row 1 is a call of a tool, which ToolCall alone can compare"
    )
    assert ToolCall().check(EXPECTED) is None
    assert "neither text nor a call" in (ToolCall().check(Expected(row=2)) or "")


def test_a_suite_without_calls_is_refused() -> None:
    assert "no row expects a call" in (ToolCall().check_suite([Expected("a"), Expected("b")]) or "")
    assert ToolCall().check_suite([Expected("a"), EXPECTED]) is None


def test_without_tools_text_is_text() -> None:
    assert read_answer(WRITTEN["llama"]).text == WRITTEN["llama"]
    assert read_answer('{"aisle": 4}', tools=TOOLS).text == '{"aisle": 4}'
    assert read_answer("[1, 2]", tools=TOOLS).text == "[1, 2]"


@pytest.mark.parametrize(
    "part",
    ["<tool_call>", "<tool_call><function=f><parameter=x>", "[TOOL_CALLS]", "[f(", "{", "<|tool_call|>[",
     "<arg_key>", "<|tool_call>call:f{", "<|tool_call>", "<|tool_call_start|>[f(",
     "<\uff5ctool\u2581call\u2581begin\uff5c>", "<tool_call>f<arg_key>x</arg_key><arg_value>", ";", "[[", "-"],
)  # fmt: skip
def test_hostile_answers_take_no_time(part: str) -> None:
    answer = read_answer(part * 20_000, tools=TOOLS)
    assert score(answer) == 0
    assert score(read_answer('{"name": "f", "parameters": ' + part * 20_000, tools=TOOLS)) == 0
