"""Whether a model is asked in training as it will be when it serves."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

_QUESTION = [{"role": "user", "content": "one"}]


def is_template_changed(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether training puts a question to the model in other words than the model's own template does.

    A replacement that only marks the answer, or keeps the reasoning of earlier turns, changes no question: what is
    trained with it answers by the model's own template.
    """
    template = tokenizer.chat_template
    if not template or has_generation_markers(template):
        return False
    try:
        replacement = get_training_chat_template(tokenizer)
        return replacement is not None and _ask(tokenizer, None) != _ask(tokenizer, replacement)
    except (ValueError, TemplateError):
        return False


def _ask(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    return str(
        tokenizer.apply_chat_template(
            _QUESTION, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    )
