"""Forms in which models write calls of tools and thinking, as chat templates show, and what reads them in vLLM."""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

from pydantic import Field

from .base import Report

MAX_SWITCHES = 16

#: Value of an argument of a chat template.
Switch = bool | int | float | str


class ToolFormat(StrEnum):
    """Form of calls of tools."""

    HERMES = "Hermes"
    QWEN_XML = "QwenXML"
    GLM = "GLM"
    GEMMA = "Gemma"
    HARMONY = "Harmony"
    MISTRAL = "Mistral"
    LFM = "LFM"
    COHERE = "Cohere"
    DEEPSEEK_V3 = "DeepSeekV3"
    DEEPSEEK_V31 = "DeepSeekV31"
    LLAMA_3 = "Llama3"
    LLAMA_4 = "Llama4"


class ThinkingFormat(StrEnum):
    """Form of thinking that every answer begins with.

    ``Think``: the template opens ``<think>``. ``SwitchedThink``: so it does unless ``enable_thinking`` is false.
    """

    THINK = "Think"
    SWITCHED_THINK = "SwitchedThink"
    HARMONY = "Harmony"


_CALLS_BEGIN = "<\uff5ctool\u2581calls\u2581begin\uff5c>"
_CALLS_END = "<\uff5ctool\u2581calls\u2581end\uff5c>"

#: Names of vLLM's parsers.
TOOL_PARSERS: Mapping[ToolFormat, str] = {
    ToolFormat.HERMES: "hermes",
    ToolFormat.QWEN_XML: "qwen3_coder",
    ToolFormat.GLM: "glm45",
    ToolFormat.GEMMA: "gemma4",
    ToolFormat.HARMONY: "openai",
    ToolFormat.MISTRAL: "mistral",
    ToolFormat.LFM: "lfm2",
    ToolFormat.COHERE: "cohere_command3",
    ToolFormat.DEEPSEEK_V3: "deepseek_v3",
    ToolFormat.DEEPSEEK_V31: "deepseek_v31",
    ToolFormat.LLAMA_3: "llama3_json",
    ToolFormat.LLAMA_4: "llama4_pythonic",
}
REASONING_PARSERS: Mapping[ThinkingFormat, str] = {
    ThinkingFormat.THINK: "deepseek_r1",
    ThinkingFormat.SWITCHED_THINK: "qwen3",
    ThinkingFormat.HARMONY: "openai_gptoss",
}

#: Parsers that people may name, with those in whose place they read the same form.
EQUIVALENT_PARSERS: Mapping[str, frozenset[str]] = {
    "qwen3_xml": frozenset({"qwen3_coder"}),
    "qwen3_json": frozenset({"hermes"}),
    "glm47": frozenset({"glm45"}),
    "llama4_json": frozenset({"llama3_json"}),
    "cohere_command4": frozenset({"cohere_command3"}),
    "nemotron_v3": frozenset({"qwen3", "deepseek_r1"}),
    "deepseek_v3": frozenset({"deepseek_r1", "qwen3"}),
    "qwen3": frozenset({"deepseek_r1"}),
}

#: Tokens without which vLLM does not start with the parser of a form; it finds the marks of the others in the text.
TOOL_TOKENS: Mapping[ToolFormat, frozenset[str]] = {
    ToolFormat.MISTRAL: frozenset({"[TOOL_CALLS]"}),
    ToolFormat.LFM: frozenset({"<|tool_call_start|>", "<|tool_call_end|>"}),
    ToolFormat.DEEPSEEK_V3: frozenset({_CALLS_BEGIN, _CALLS_END}),
    ToolFormat.DEEPSEEK_V31: frozenset({_CALLS_BEGIN, _CALLS_END}),
    ToolFormat.LLAMA_3: frozenset({"<|python_tag|>"}),
}
THINKING_TOKENS: Mapping[ThinkingFormat, frozenset[str]] = {
    ThinkingFormat.THINK: frozenset({"<think>", "</think>"}),
}

_HARMONY = "<|channel|>commentary"
#: Text that a template has if it writes calls in this form; the first that fits counts.
_TOOL_MARKS: tuple[tuple[ToolFormat, tuple[str, ...]], ...] = (
    (ToolFormat.QWEN_XML, ("<tool_call>", "<function=")),
    (ToolFormat.GLM, ("<tool_call>", "<arg_key>")),
    (ToolFormat.GEMMA, ("<|tool_call>call:",)),
    (ToolFormat.HARMONY, (_HARMONY,)),
    (ToolFormat.MISTRAL, ("[TOOL_CALLS]",)),
    (ToolFormat.LFM, ("<|tool_call_start|>",)),
    (ToolFormat.COHERE, ("<|START_ACTION|>",)),
    (ToolFormat.DEEPSEEK_V3, ("<\uff5ctool\u2581call\u2581begin\uff5c>", "```json")),
    (ToolFormat.DEEPSEEK_V31, ("<\uff5ctool\u2581call\u2581begin\uff5c>",)),
    (ToolFormat.LLAMA_4, ("<|python_start|>",)),
    (ToolFormat.LLAMA_3, ('"parameters": ', "ipython")),
    (ToolFormat.HERMES, ("<tool_call>", '"arguments": ')),
)


class ChatFormat(Report):
    """Form of an artifact's conversations and answers, as it was trained and is evaluated.

    Attributes:
        tools: form of its calls of tools; None where the template shows none that the engine could read.
        thinking: form of the thinking before each answer; None where answers begin without, or the engine could not
            read it.
        switches: arguments of the chat template.
    """

    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None
    switches: dict[str, Switch] = Field({}, max_length=MAX_SWITCHES)


def find_tool_format(template: str, tokens: Container[str]) -> ToolFormat | None:
    """Form of calls that a chat template writes; None if it is none of those that are known.

    Args:
        tokens: vocabulary of the tokenizer; a form without the tokens that its parser needs does not count.
    """
    found = (form for form, marks in _TOOL_MARKS if all(mark in template for mark in marks))
    form = next(found, None)
    return form if form is None or _has_all(tokens, TOOL_TOKENS.get(form, ())) else None


def find_thinking_format(template: str, prompt: str, tokens: Container[str]) -> ThinkingFormat | None:
    """Form of the thinking that every answer begins with.

    A parser for models that may think, used for answers that don't, takes the whole answer for thinking. So only what
    the prompt itself opens counts.

    Args:
        template: the chat template.
        prompt: a conversation rendered by it, up to the beginning of the answer.
        tokens: vocabulary of the tokenizer; a form without the tokens that its parser needs does not count.
    """
    form = None
    if _HARMONY in template:
        form = ThinkingFormat.HARMONY
    elif prompt.rpartition("<think>")[1] and not prompt.rpartition("<think>")[2].strip():
        form = ThinkingFormat.SWITCHED_THINK if "enable_thinking" in template else ThinkingFormat.THINK
    return form if form is None or _has_all(tokens, THINKING_TOKENS.get(form, ())) else None


def _has_all(tokens: Container[str], needed: Iterable[str]) -> bool:
    return all(token in tokens for token in needed)
