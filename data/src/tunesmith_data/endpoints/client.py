"""HTTP client of one endpoint, with retries while it is busy or unreachable."""

import email.utils
import json
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

#: Reason of a failure where an endpoint wants a key, or another one.
KEY_REFUSED = "EndpointKeyRefused"

ATTEMPTS = 8
LONGEST_WAIT_SECONDS = 300.0
_BACK_OFF = tenacity.wait_random_exponential(multiplier=1, max=30)
_BUSY = frozenset({408, 409, 425, 429})
_NOT_PROCESSED = frozenset({409, 425, 429, 503})
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SHOWN_CHARACTERS = 200
#: Longest response that is read: some endpoints, or what stands in front of them, never end theirs.
LONGEST_RESPONSE_BYTES = 64 * 1024**2

Result = TypeVar("Result")


class RequestRefused(Exception):
    """The endpoint rejects this request; other requests may succeed.

    Args:
        message: status and response of the endpoint.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnexpectedResponse(UserError):
    """The endpoint answers, but not by the protocol: its URL is wrong, or something in front of it answers.

    Args:
        message: what it answers, and what to write.
    """

    def __init__(self, message: str) -> None:
        super().__init__("EndpointAnswer", message)


class EndpointBusy(Exception):
    """The endpoint is busy or unreachable.

    Attributes:
        retry_after: seconds that it asks to wait; None if it does not say.
        not_processed: the request was certainly not processed; otherwise it may have to be paid.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, not_processed: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.not_processed = not_processed


class Endpoint:
    """Client that posts JSON to one URL, with retries. Threads may share it.

    Args:
        url: URL of the endpoint.
        name: name in messages, such as ``the teacher``.
        secret: the folder of a mounted Secret, whose file ``token``, where there is one, is the bearer token.
        timeout_seconds: time limit of one try, from the request to the end of the response.
        sleep: waits for a number of seconds.
        longest_wait: longest wait that it may ask for; if it asks for more, it counts as unavailable.
    """

    def __init__(
        self,
        url: str,
        name: str,
        secret: Path,
        timeout_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        *,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self._url = url
        self._name = name
        self._key_file = secret / KEY_FILE
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(timeout=timeout_seconds, follow_redirects=False)
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(EndpointBusy),
            wait=_wait_seconds,
            stop=lambda state: (
                state.attempt_number >= ATTEMPTS or (_requested_wait(state) or 0.0) > longest_wait
            ),
            before_sleep=self._log_wait,
            sleep=sleep,
            reraise=True,
        )

    def post(self, body: dict[str, Any]) -> Any:
        """JSON response of the endpoint, with retries.

        Raises:
            RequestRefused: this request is wrong (400, 413, 422).
            UserError: the key, the URL or the protocol is wrong.
            InfrastructureError: it was busy or unreachable at every try.
        """
        return self.retry_while_busy(lambda: self.post_once(body))

    def retry_while_busy(self, attempt: Callable[[], Result]) -> Result:
        """Result of ``attempt``, which is repeated while it raises EndpointBusy.

        Raises:
            InfrastructureError: it did so at every try.
        """
        try:
            return self._retry.copy()(attempt)
        except EndpointBusy as error:
            message = f"{self._name} at {self._url} cannot be reached: {error}; {_advice(error)}"
            raise InfrastructureError("EndpointUnavailable", message) from error

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def post_once(self, body: dict[str, Any]) -> Any:
        """JSON response of the endpoint to one request.

        Raises:
            EndpointBusy: it is busy or unreachable.
            RequestRefused, UserError: as ``post``.
        """
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with self._client.stream("POST", self._url, json=body, headers=headers) as response:
                content = self._read(response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._user_error(f"has no valid URL ({error})", "write an http or https URL") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise EndpointBusy(
                f"{type(error).__name__}: {error}", not_processed=isinstance(error, _NOT_SENT)
            ) from error
        text = content.decode(errors="replace")
        self._check_status(response, text, key)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UnexpectedResponse(
                f"{self._name} at {self._url} does not answer with JSON ({_excerpt(text, key)}): "
                "name an endpoint that does"
            ) from error

    def _read(self, response: httpx.Response) -> bytes:
        """Content of a response.

        Raises:
            EndpointBusy: it does not end in time; the client's own limit is for each part of it.
            RequestRefused: it is too large.
        """
        content, started = bytearray(), time.monotonic()
        for part in response.iter_bytes():
            content += part
            if len(content) > LONGEST_RESPONSE_BYTES:
                raise RequestRefused(f"its response has more than {LONGEST_RESPONSE_BYTES >> 20} MiB")
            if time.monotonic() - started > self._timeout_seconds:
                raise EndpointBusy(f"its response did not end within {self._timeout_seconds:g} s")
        return bytes(content)

    def _check_status(self, response: httpx.Response, text: str, key: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        status_line = f"HTTP {status} {_excerpt(text, key)}".rstrip()
        if status in _BUSY or response.is_server_error:
            raise EndpointBusy(status_line, _retry_after(response), not_processed=status in _NOT_PROCESSED)
        if status in {400, 413, 422}:
            raise RequestRefused(status_line)
        if status in {401, 403}:
            raise self._key_refused(status_line, key)
        if response.has_redirect_location:
            target = _excerpt(response.headers["Location"], key)
            advice = "write the URL that answers, redirects are not followed"
            raise self._user_error(f"redirects to {target} (HTTP {status})", advice)
        raise self._user_error(
            f"rejects the request ({status_line})", "correct its URL, or the name of the model"
        )

    def _key(self) -> str:
        key = self._key_file.read_text().strip() if self._key_file.is_file() else ""
        if not (key.isascii() and key.isprintable()):
            # Checked here, since HTTP libraries quote an invalid header in their error.
            advice = f"write one line of ASCII into the Secret's {KEY_FILE}"
            raise self._user_error("has an invalid key", advice, KEY_REFUSED)
        return key

    def _key_refused(self, status_line: str, key: str) -> UserError:
        if key:
            advice = f"put a key that it takes into the Secret's {KEY_FILE}"
            return self._user_error(f"rejects the key ({status_line})", advice, KEY_REFUSED)
        advice = f"name a Secret as its secretRef, with a key in the Secret's file {KEY_FILE}"
        return self._user_error(f"wants a key ({status_line})", advice, KEY_REFUSED)

    def _user_error(self, problem: str, advice: str, reason: str = "EndpointRefused") -> UserError:
        return UserError(reason, f"{self._name} at {self._url} {problem}: {advice}")

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        error, wait = state.outcome.exception(), state.upcoming_sleep
        log.warning("%s: %s; asking again in %.1f s", self._name, error, wait)


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    """Seconds before the next try: as the endpoint asks, else an exponential back-off with jitter."""
    requested = _requested_wait(state)
    return _BACK_OFF(state) if requested is None else requested


def _requested_wait(state: tenacity.RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, EndpointBusy) else None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait by ``Retry-After``, which is a number or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _advice(error: EndpointBusy) -> str:
    if error.retry_after is None:
        return "check that it is running"
    return f"it asks to wait {error.retry_after:,.0f} s: try again later, or raise its limits"


def _excerpt(text: str, key: str) -> str:
    """Beginning of a response's text, without the key."""
    text = text.replace(key, REDACTED) if key else text
    return " ".join(text[: 100 * _SHOWN_CHARACTERS].split())[:_SHOWN_CHARACTERS]
