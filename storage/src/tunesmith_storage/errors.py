"""Storage errors, in the failure categories of the contract."""

from tunesmith_contract.exit_codes import RETRYABLE, FailureCategory

#: The reason of a failure that may pass within seconds.
UNAVAILABLE = "StorageUnavailable"


class StorageError(Exception):
    """A store that refuses a request, or does not answer.

    Attributes:
        category: who or what caused the failure.
        reason: a PascalCase word.
        message: a sentence that says what to do; it holds no secret, and neither does its cause.
    """

    def __init__(self, category: FailureCategory, reason: str, message: str) -> None:
        super().__init__(message)
        self.category = category
        self.reason = reason
        self.message = message

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later."""
        return self.category in RETRYABLE


class StorageRefused(StorageError):
    """A wrong URI or Secret: the same request fails the same way again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.USER_ERROR, reason, message)


class NotFound(StorageRefused):
    """A URI at which the store holds nothing."""


class StorageUnavailable(StorageError):
    """A store that does not answer, or holds other bytes than expected."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.INFRASTRUCTURE, reason, message)
