"""Retries of store requests, with growing, jittered pauses."""

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

from .errors import UNAVAILABLE, StorageError

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

Result = TypeVar("Result")


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.reason == UNAVAILABLE


def _log_retry(state: tenacity.RetryCallState) -> None:
    log.warning("trying again: %s", state.outcome.exception() if state.outcome else "")


def with_retries(action: Callable[[], Result]) -> Result:
    """Run an idempotent action, and again while the store does not answer.

    Raises:
        StorageError: the error of the last try.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_retryable),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        before_sleep=_log_retry,
        reraise=True,
    )
    return retrying(action)
