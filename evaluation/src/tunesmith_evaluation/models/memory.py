"""Computations for which memory may not suffice."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError, classify

Result = TypeVar("Result")


def release_memory() -> None:
    """Return the memory of objects that are no longer used to the GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def within_memory(compute: Callable[[], Result]) -> Result | None:
    """Result of a computation, or None if memory did not suffice for it."""
    try:
        return compute()
    except RuntimeError as error:
        if classify(error)[0] is not FailureCategory.OUT_OF_MEMORY:
            raise
    # Outside of the handler, since the exception's traceback refers to the tensors.
    release_memory()
    return None


def out_of_memory(prompt_tokens: int, max_new_tokens: int) -> StageError:
    """Failure of a single item for which memory does not suffice."""
    message = (
        f"memory does not suffice for a single item beside the model: a prompt of {prompt_tokens:,} tokens and an "
        f"answer of up to {max_new_tokens:,}: lower fewShot or maxNewTokens, leave out the longest items, or choose "
        "GPUs with more memory"
    )
    return StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
