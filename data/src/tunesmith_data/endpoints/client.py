"""Calls of HTTP endpoints that may be slow, busy or away for a while."""

import email.utils
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import tenacity

from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_data.pod.redaction import REDACTED

log = logging.getLogger(__name__)

#: The key of a Secret that holds an endpoint's bearer token.
KEY_FILE = "token"

ATTEMPTS = 8
LONGEST_WAIT_SECONDS = 300.0
_BACK_OFF = tenacity.wait_random_exponential(multiplier=1, max=30)
_BUSY = frozenset({408, 409, 425, 429})
_TURNED_AWAY = frozenset({409, 425, 429, 503})
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SHOWN_CHARACTERS = 200

Result = TypeVar("Result")


class RequestRefused(Exception):
    """The endpoint says that this one request is wrong: another may be right.

    Args:
        message: status and what the endpoint said.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TryAgain(Exception):
    """The endpoint is busy or away.

    Attributes:
        retry_after: seconds that it asks to be left alone; None if it doesn't say.
        unserved: it has certainly not worked on the request; otherwise it may want to be paid for it.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, unserved: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.unserved = unserved


class Endpoint:
    """Posts JSON to one URL, again and again where that may help. Threads may share it.

    Args:
        url: where to.
        what: what messages call it, such as ``the teacher``.
        secret: the folder of a mounted Secret, whose file ``token``, where there is one, is the bearer token.
        timeout_seconds: how long one try may take.
        sleep: waits so many seconds.
        longest_wait: how long it may ask to be left alone; if it asks for longer, it is away.
    """

    def __init__(
        self,
        url: str,
        what: str,
        secret: Path,
        timeout_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        *,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self._url = url
        self._what = what
        self._key_file = secret / KEY_FILE
        self._client = httpx.Client(timeout=timeout_seconds, follow_redirects=False)
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryAgain),
            wait=_wait,
            stop=lambda state: state.attempt_number >= ATTEMPTS or (_asked_wait(state) or 0.0) > longest_wait,
            before_sleep=self._log_wait,
            sleep=sleep,
            reraise=True,
        )

    def post(self, body: dict[str, Any]) -> Any:
        """The JSON that the endpoint answers.

        Raises:
            RequestRefused: this request is wrong (400, 413, 422).
            UserError: the endpoint wants another key, URL or protocol.
            InfrastructureError: it was busy or away at every try.
        """
        return self.persist(lambda: self.post_once(body))

    def persist(self, attempt: Callable[[], Result]) -> Result:
        """What ``attempt`` comes to, which is made again when it raises TryAgain.

        Raises:
            InfrastructureError: it did so at every try.
        """
        try:
            return self._retry.copy()(attempt)
        except TryAgain as error:
            message = f"{self._what} at {self._url} can't be reached: {error}; see that it runs"
            raise InfrastructureError("EndpointUnavailable", message) from error

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def post_once(self, body: dict[str, Any]) -> Any:
        """The JSON that the endpoint answers, asked once.

        Raises:
            TryAgain: it is busy or away.
            RequestRefused, UserError: as ``post``.
        """
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = self._client.post(self._url, json=body, headers=headers)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._user_error(f"can't be asked ({error})", "write an http or https URL") from error
        except httpx.TransportError as error:
            raise TryAgain(f"{type(error).__name__}: {error}", unserved=isinstance(error, _UNSENT)) from error
        self._require_success(response, key)
        try:
            return response.json()
        except ValueError as error:
            found = _excerpt(response, key)
            raise self._user_error(f"answers with no JSON ({found})", "name an endpoint that does") from error

    def _require_success(self, response: httpx.Response, key: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        found = f"HTTP {status} {_excerpt(response, key)}"
        if status in _BUSY or response.is_server_error:
            raise TryAgain(found, _retry_after(response), unserved=status in _TURNED_AWAY)
        if status in {400, 413, 422}:
            raise RequestRefused(found)
        if status in {401, 403}:
            advice = f"put a key that it takes into the Secret's {KEY_FILE}"
            raise self._user_error(f"refuses the key ({found})", advice)
        raise self._user_error(f"doesn't take requests ({found})", "correct its URL")

    def _key(self) -> str:
        key = self._key_file.read_text().strip() if self._key_file.is_file() else ""
        if not (key.isascii() and key.isprintable()):
            # Said here, since HTTP libraries quote a header that they can't send.
            raise self._user_error("can't be sent its key", f"write one line of ASCII into {KEY_FILE}")
        return key

    def _user_error(self, what: str, advice: str) -> UserError:
        return UserError("EndpointRefused", f"{self._what} at {self._url} {what}: {advice}")

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        error, wait = state.outcome.exception(), state.upcoming_sleep
        log.warning("%s: %s; asking again in %.1f s", self._what, error, wait)


def _wait(state: tenacity.RetryCallState) -> float:
    """As long as the endpoint asks for, else ever longer, by chance."""
    asked = _asked_wait(state)
    return _BACK_OFF(state) if asked is None else asked


def _asked_wait(state: tenacity.RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, TryAgain) else None


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds in ``Retry-After``, a number or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _excerpt(response: httpx.Response, key: str) -> str:
    """The beginning of what the endpoint said, without the key."""
    text = response.text.replace(key, REDACTED) if key else response.text
    return " ".join(text.split())[:_SHOWN_CHARACTERS]
