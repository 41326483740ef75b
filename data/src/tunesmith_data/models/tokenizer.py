"""Tokenizer of the base model, loaded without the model's code."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunesmith_data.failures import UserError


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        UserError: it can't be read, or is not a fast one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        message = f"the base model's tokenizer can't be read ({error}): add tokenizer.json to its folder"
        raise UserError("TokenizerUnreadable", message) from error
    if not tokenizer.is_fast:
        raise UserError("TokenizerUnreadable", "the base model has no tokenizer.json: add one to its folder")
    if tokenizer.eos_token_id is None:
        raise UserError("TokenizerUnreadable", "the base model's tokenizer names no eos_token: add one")
    return tokenizer


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token where the tokenizer names no padding; its labels are ignored either way."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
