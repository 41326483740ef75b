"""Forms of answers as the chat templates of real models show them."""

from importlib.resources import files

import pytest
from models.tiny_models import CHAT_TEMPLATE, make_tokenizer

from tunesmith_contract.answer_formats import (
    THINKING_TOKENS,
    TOOL_TOKENS,
    ChatFormat,
    ThinkingFormat,
    ToolFormat,
)
from tunesmith_data.failures import UserError
from tunesmith_data.models.chat_format import find_chat_format
from tunesmith_data.models.rendering import Renderer

TEMPLATES = files("trl") / "chat_templates"


@pytest.mark.parametrize(
    ("name", "tools", "thinking"),
    [
        ("qwen2_5", ToolFormat.HERMES, None),
        ("qwen3", ToolFormat.HERMES, None),
        ("qwen3_instruct_2507", ToolFormat.HERMES, None),
        ("qwen3_vl", ToolFormat.HERMES, None),
        ("qwen3_5_think", ToolFormat.QWEN_XML, ThinkingFormat.SWITCHED_THINK),
        ("qwen3_5_nothink", ToolFormat.QWEN_XML, None),
        ("nemotron_3_nano", ToolFormat.QWEN_XML, ThinkingFormat.SWITCHED_THINK),
        ("glm4moe", ToolFormat.GLM, None),
        ("gemma4", ToolFormat.GEMMA, None),
        ("gptoss", ToolFormat.HARMONY, ThinkingFormat.HARMONY),
        ("lfm2_v2", ToolFormat.LFM, None),
        ("llama3", None, None),
        ("llama3_1", ToolFormat.LLAMA_3, None),
        ("llama3_2", ToolFormat.LLAMA_3, None),
        ("deepseek_r1_distill", ToolFormat.DEEPSEEK_V3, ThinkingFormat.THINK),
        ("gemma3", None, None),
        ("phi3", None, None),
    ],
)
def test_real_templates(name: str, tools: ToolFormat | None, thinking: ThinkingFormat | None) -> None:
    tokenizer = make_tokenizer(["one"], (TEMPLATES / f"{name}.jinja").read_text())
    tokenizer.add_tokens(sorted(frozenset().union(*TOOL_TOKENS.values(), *THINKING_TOKENS.values())))
    assert find_chat_format(tokenizer) == ChatFormat(tools=tools, thinking=thinking)


def test_a_form_whose_parser_does_not_start_does_not_count() -> None:
    """vLLM refuses to start with a parser whose tokens the tokenizer does not have."""
    tokenizer = make_tokenizer(["one"], (TEMPLATES / "deepseek_r1_distill.jinja").read_text())
    assert find_chat_format(tokenizer) == ChatFormat()


def test_switches_decide_whether_answers_begin_with_thinking() -> None:
    template = (TEMPLATES / "qwen3_5_think.jinja").read_text()
    off = {"enable_thinking": False}
    found = find_chat_format(make_tokenizer(["one"], template), off)
    assert found == ChatFormat(tools=ToolFormat.QWEN_XML, switches=off)


def test_no_template_no_form() -> None:
    assert find_chat_format(make_tokenizer(["one"], None)) is None


def test_rows_are_rendered_with_the_switches_of_the_run() -> None:
    template = "{% if quiet %}hush {% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = make_tokenizer(["hush one"], template)
    question = [{"role": "user", "content": "one"}]
    assert Renderer(tokenizer).prompt(question) == "one"
    quiet = Renderer(tokenizer, arguments={"quiet": True})
    assert quiet.prompt(question) == "hush one"
    assert quiet.prompt(question, arguments={"quiet": False}) == "one"


def test_an_argument_that_the_template_does_not_take_is_refused() -> None:
    tokenizer = make_tokenizer(["one"], CHAT_TEMPLATE)
    for name in ("enable_thinking", "tokenize"):
        with pytest.raises(UserError, match=f"takes no argument {name}: remove it from templateArguments"):
            Renderer(tokenizer, arguments={name: False}).require_chat()
