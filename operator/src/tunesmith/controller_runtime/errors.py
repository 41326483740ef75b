"""Errors of API calls, by what helps against them.

ApiError
├── Retryable    try again later: network, 401 (the token rotates), 409, 429, 5xx
│   └── Conflict the object changed since it was read
├── Refused      a person has to change something: 400, 403, 405, 413, 415, 422
│   └── NameTaken an object of that name exists and belongs to somebody else
└── Gone         the object, its kind or its namespace does not exist, or a version is too old: 404, 410
"""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A call to the API server failed.

    Attributes:
        message: a sentence for people: the API server's own message where it sent one.
        code: the HTTP status; 0 when there was none.
        reason: the machine-readable reason of the API server, such as ``AlreadyExists``.
    """

    def __init__(self, message: str, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason


class Retryable(ApiError):
    """An error that may go away; ``retry_after`` is the wait in seconds that the server asked for, if any."""

    def __init__(
        self, message: str, code: int = 0, reason: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, code, reason)
        self.retry_after = retry_after


class Conflict(Retryable):
    """An object that exists already, or changed since it was read."""


class Refused(ApiError):
    """A refusal by admission, quota, Pod Security, permissions or validation."""


class NameTaken(Refused):
    """An object that can't be made: one of its name is there already, and belongs to somebody else."""


class Gone(ApiError):
    """A missing object, or a resource version that is too old."""


def to_error(code: int, status: Mapping[str, Any], retry_after: float | None = None) -> ApiError:
    """The error of a response of 400 or more.

    Args:
        code: HTTP status.
        status: the ``v1/Status`` in the body; empty when the body was something else.
        retry_after: seconds, of the header ``Retry-After``.
    """
    message = str(status.get("message") or f"the API server answered {code}")
    reason = str(status.get("reason") or "")
    if code == 409:
        return Conflict(message, code, reason, retry_after)
    if code in (404, 410):
        return Gone(message, code, reason)
    if code in (401, 408, 429) or code >= 500:
        return Retryable(message, code, reason, retry_after)
    return Refused(message, code, reason)
