"""Form of a model's conversations and answers, found in its chat template."""

from collections.abc import Mapping
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

from tunesmith_contract.answer_formats import ChatFormat, Switch, find_thinking_format, find_tool_format

from .rendering import Renderer, RenderError

_QUESTION = [{"role": "user", "content": "one"}]


def find_chat_format(
    tokenizer: PreTrainedTokenizerBase, switches: Mapping[str, Switch] = MappingProxyType({})
) -> ChatFormat | None:
    """Form of conversations with these switches; None without a chat template.

    Args:
        tokenizer: the model's tokenizer.
        switches: arguments of the chat template.
    """
    template = tokenizer.chat_template
    if not template:
        return None
    text = "\n".join(template.values()) if isinstance(template, dict) else str(template)
    try:
        prompt = Renderer(tokenizer, arguments=switches).prompt(_QUESTION)
    except RenderError:
        # A template that refuses a plain question shows nothing about its answers.
        prompt = ""
    tokens = tokenizer.get_vocab()
    return ChatFormat(
        tools=find_tool_format(text, tokens),
        thinking=find_thinking_format(text, prompt, tokens),
        switches=dict(switches),
    )
