"""Exit codes of training pods, and their failure categories."""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit code of PID 1 in a training pod.

    They keep clear of 1 and 2 (an interpreter's own), of 126 and 127 (a shell's) and of 128 + signal.
    """

    SUCCEEDED = 0
    USER_ERROR = 10
    DATA_ERROR = 11
    OUT_OF_MEMORY = 12
    COMMUNICATION = 13
    INFRASTRUCTURE = 14
    PREEMPTED = 15
    INTERNAL_ERROR = 16


class FailureCategory(StrEnum):
    """Category of a failure: whose it is, and whether another attempt can help.

    ``InternalError`` is a fault of Tunesmith or of its image: the same input would fail the same way.
    """

    USER_ERROR = "UserError"
    DATA_ERROR = "DataError"
    OUT_OF_MEMORY = "OutOfMemory"
    COMMUNICATION = "Communication"
    INFRASTRUCTURE = "Infrastructure"
    INTERNAL_ERROR = "InternalError"


#: Categories that the same input can overcome on another attempt.
RETRYABLE = frozenset({FailureCategory.COMMUNICATION, FailureCategory.INFRASTRUCTURE})

_CATEGORIES: dict[int, FailureCategory] = {
    ExitCode.USER_ERROR: FailureCategory.USER_ERROR,
    ExitCode.DATA_ERROR: FailureCategory.DATA_ERROR,
    ExitCode.OUT_OF_MEMORY: FailureCategory.OUT_OF_MEMORY,
    ExitCode.COMMUNICATION: FailureCategory.COMMUNICATION,
    ExitCode.INFRASTRUCTURE: FailureCategory.INFRASTRUCTURE,
    ExitCode.INTERNAL_ERROR: FailureCategory.INTERNAL_ERROR,
}


def category_of(exit_code: int) -> FailureCategory | None:
    """The category of a failed pod's exit code; None for success and for a preemption.

    A code outside the contract (a crash, a signal) counts as infrastructure: it may be tried again, within the limit.
    """
    if exit_code in (ExitCode.SUCCEEDED, ExitCode.PREEMPTED):
        return None
    return _CATEGORIES.get(exit_code, FailureCategory.INFRASTRUCTURE)


def exit_code_of(category: FailureCategory) -> ExitCode:
    """Exit code of a category."""
    return next(ExitCode(code) for code, stands_for in _CATEGORIES.items() if stands_for is category)
