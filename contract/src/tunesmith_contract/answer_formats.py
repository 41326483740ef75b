"""Forms in which models write calls of tools and thinking, as chat templates show, and what reads them in vLLM."""

from collections.abc import Mapping
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
        tools: form of its calls of tools; None where the template shows none that is known.
        thinking: form of the thinking before each answer; None where answers begin without.
        switches: arguments of the chat template.
    """

    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None
    switches: dict[str, Switch] = Field({}, max_length=MAX_SWITCHES)


def find_tool_format(template: str) -> ToolFormat | None:
    """Form of calls that a chat template writes; None if it is none of those that are known."""
    found = (form for form, marks in _TOOL_MARKS if all(mark in template for mark in marks))
    return next(found, None)


def find_thinking_format(template: str, prompt: str) -> ThinkingFormat | None:
    """Form of the thinking that every answer begins with.

    A parser for models that may think, used for answers that don't, takes the whole answer for thinking. So only what
    the prompt itself opens counts.

    Args:
        template: the chat template.
        prompt: a conversation rendered by it, up to the beginning of the answer.
    """
    if _HARMONY in template:
        return ThinkingFormat.HARMONY
    if prompt.rpartition("<think>")[1] and not prompt.rpartition("<think>")[2].strip():
        return ThinkingFormat.SWITCHED_THINK if "enable_thinking" in template else ThinkingFormat.THINK
    return None
