"""How storage fails, in the categories of the contract."""

from tunesmith_contract.exit_codes import RETRYABLE, FailureCategory

#: The reason of a failure that may pass within seconds.
NO_ANSWER = "StorageUnavailable"


class StorageError(Exception):
    """A store refused, or does not answer.

    Attributes:
        category: whose failure it is.
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
        """Whether the same request may succeed later."""
        return self.category in RETRYABLE


class StorageRefused(StorageError):
    """The URI or the Secret is wrong: the same request fails the same way."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.USER_ERROR, reason, message)


class NotThere(StorageRefused):
    """The store holds nothing of that name."""


class StorageUnavailable(StorageError):
    """The store does not answer, or holds other bytes than it should."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.INFRASTRUCTURE, reason, message)
