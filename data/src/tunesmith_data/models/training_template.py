"""Chat templates that TRL substitutes in training; none where TRL is not installed."""

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from .optional_libraries import is_installed

_QUESTION = [{"role": "user", "content": "one"}]
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def find_marked_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The model's own template where it has generation marks, else TRL's training variant of it, where it knows one.

    Without either, answers are found by rendering prefixes.
    """
    template = tokenizer.chat_template
    if not template:
        return None
    if _is_marked(template):
        return str(template["default"] if isinstance(template, dict) else template)
    return _find_variant(tokenizer)


def is_template_changed(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if training renders questions differently from the model's own template.

    A replacement that only marks the answer, or keeps the reasoning of earlier turns, changes no question: what is
    trained with it answers by the model's own template.
    """
    template = tokenizer.chat_template
    if not template or _is_marked(template):
        return False
    replacement = _find_variant(tokenizer)
    try:
        return replacement is not None and _ask(tokenizer, None) != _ask(tokenizer, replacement)
    except (ValueError, TemplateError):
        return False


def _find_variant(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """TRL's training variant of a template that it knows."""
    if not is_installed("trl"):
        return None
    # TRL loads datasets and pandas, which plain text doesn't need.
    from trl.chat_template_utils import get_training_chat_template

    try:
        variant: str | None = get_training_chat_template(tokenizer)
    except (ValueError, TemplateError):
        return None
    return variant


def _is_marked(template: str | dict[str, str]) -> bool:
    """True if a template has generation marks."""
    return _MARK.search(template["default"] if isinstance(template, dict) else template) is not None


def _ask(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    return str(
        tokenizer.apply_chat_template(
            _QUESTION, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    )
