"""Each answer of the API server is retried, shown to people, or taken as done."""

import pytest

from tunesmith.controller_runtime.errors import ApiError, Conflict, Gone, Refused, Retryable, to_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Refused),
        (401, Retryable),
        (403, Refused),
        (404, Gone),
        (409, Conflict),
        (410, Gone),
        (413, Refused),
        (422, Refused),
        (429, Retryable),
        (500, Retryable),
        (504, Retryable),
    ],
)
def test_class_of_each_code(code: int, kind: type[ApiError]) -> None:
    error = to_error(code, {"message": "exceeded quota: small", "reason": "Forbidden"})
    assert type(error) is kind
    assert (error.message, error.code, error.reason) == ("exceeded quota: small", code, "Forbidden")


def test_the_servers_wish_is_kept() -> None:
    error = to_error(429, {}, retry_after=7.0)
    assert isinstance(error, Retryable)
    assert error.retry_after == 7.0
    assert error.message == "the API server answered 429"
