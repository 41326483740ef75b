"""Tokenizer of a model, loaded without the model's code."""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunesmith_data.failures import UserError


def load_tokenizer(folder: Path, model: str = "the base model") -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Args:
        folder: the model's folder.
        model: name of the model in messages.

    Raises:
        UserError: it can't be read, or is not a fast one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        message = f"the tokenizer of {model} can't be read ({error}): copy its tokenizer.json to {folder}"
        raise UserError("TokenizerUnreadable", message) from error
    if not tokenizer.is_fast:
        raise UserError("TokenizerUnreadable", f"{model} has no tokenizer.json: add one to {folder}")
    if tokenizer.eos_token_id is None:
        raise UserError("TokenizerUnreadable", f"the tokenizer of {model} names no eos_token: add one")
    return tokenizer


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token where the tokenizer names no padding; its labels are ignored either way."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
