"""Forms of calls and thinking, and how manifests of different releases tell them."""

import pytest
from pydantic import ValidationError

from tunesmith_contract.answer_formats import (
    REASONING_PARSERS,
    THINKING_TOKENS,
    TOOL_PARSERS,
    TOOL_TOKENS,
    ChatFormat,
    ThinkingFormat,
    ToolFormat,
    find_thinking_format,
    find_tool_format,
)
from tunesmith_contract.artifact import Lineage, Manifest
from tunesmith_contract.evaluation import Side

LINEAGE = Lineage(
    namespace="n", job="j", uid="u", base_model="b", base_model_revision="r", dataset_digest="sha256:" + "0" * 64,
    image="i", parameters={}, versions={},
)  # fmt: skip
ALL_TOKENS = frozenset().union(*TOOL_TOKENS.values(), *THINKING_TOKENS.values())


def test_every_form_has_a_parser() -> None:
    assert set(TOOL_PARSERS) == set(ToolFormat)
    assert set(REASONING_PARSERS) == set(ThinkingFormat)


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("[TOOL_CALLS]", ToolFormat.MISTRAL),
        ("<|START_ACTION|>", ToolFormat.COHERE),
        ("<\uff5ctool\u2581call\u2581begin\uff5c>", ToolFormat.DEEPSEEK_V31),
        ("<\uff5ctool\u2581call\u2581begin\uff5c> ```json", ToolFormat.DEEPSEEK_V3),
        ("<|python_start|>", ToolFormat.LLAMA_4),
        ("<tool_call>", None),
        ("{{ messages }}", None),
    ],
)
def test_form_of_calls(template: str, form: ToolFormat | None) -> None:
    assert find_tool_format(template, ALL_TOKENS) == form


@pytest.mark.parametrize(
    ("template", "tokens", "form"),
    [
        ("[TOOL_CALLS]", {"[TOOL_CALLS]"}, ToolFormat.MISTRAL),
        ("[TOOL_CALLS]", set(), None),
        ("<|tool_call_start|>", {"<|tool_call_start|>"}, None),
        ('"parameters": ipython', set(), None),
        ('<tool_call> "arguments": ', set(), ToolFormat.HERMES),
    ],
)
def test_form_of_calls_whose_parser_does_not_start_does_not_count(
    template: str, tokens: set[str], form: ToolFormat | None
) -> None:
    assert find_tool_format(template, tokens) == form


@pytest.mark.parametrize(
    ("template", "prompt", "form"),
    [
        ("", "<think>\n", ThinkingFormat.THINK),
        ("enable_thinking", "<think>\n", ThinkingFormat.SWITCHED_THINK),
        ("enable_thinking", "<think>\n\n</think>\n\n", None),
        ("enable_thinking", "<|im_start|>assistant\n", None),
        ("<|channel|>commentary", "", ThinkingFormat.HARMONY),
    ],
)
def test_only_thinking_that_the_prompt_opens_counts(
    template: str, prompt: str, form: ThinkingFormat | None
) -> None:
    assert find_thinking_format(template, prompt, ALL_TOKENS) == form


@pytest.mark.parametrize(
    ("template", "form"), [("", None), ("enable_thinking", ThinkingFormat.SWITCHED_THINK)]
)
def test_thinking_whose_parser_does_not_start_does_not_count(
    template: str, form: ThinkingFormat | None
) -> None:
    assert find_thinking_format(template, "<think>\n", {"<think>"}) == form


def test_manifests_of_earlier_releases_keep_their_digest() -> None:
    manifest = Manifest(files=(), lineage=LINEAGE, probes=())
    assert b"chat" not in manifest.to_bytes()
    assert Manifest.model_validate_json(manifest.to_bytes()).chat is None


def test_later_members_of_the_form_are_left_out() -> None:
    chat = ChatFormat(tools=ToolFormat.HERMES, switches={"enable_thinking": False})
    manifest = Manifest(files=(), lineage=LINEAGE, probes=(), chat=chat)
    later = manifest.to_dict() | {"chat": {**chat.to_dict(), "later": 1}}
    assert Manifest.model_validate(later) == manifest
    with pytest.raises(ValidationError):
        ChatFormat(switches={str(number): True for number in range(17)})


def test_a_side_is_asked_with_the_switches_of_its_artifact() -> None:
    trained = Side(name="candidate", switches={"enable_thinking": False})
    assert (trained.asked_switches, trained.is_bare) == ({"enable_thinking": False}, True)
    same = trained.model_copy(update={"template_arguments": {"enable_thinking": False}})
    assert same.is_bare
    other = trained.model_copy(update={"template_arguments": {"enable_thinking": True}})
    assert (other.asked_switches, other.is_bare) == ({"enable_thinking": True}, False)
    assert "switches" not in trained.to_dict()
