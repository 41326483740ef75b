"""Connection to an Argilla server: API key, version check, errors as failures of the stage.

The client is imported where it is used: it takes a second, and people without a server never need it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tunesmith_data.failures import InfrastructureError, UserError

if TYPE_CHECKING:
    import argilla

#: The variable, and the key of a Secret, that holds the API key.
KEY_NAME = "ARGILLA_API_KEY"
SUPPORTED_MAJOR = 2
_TIMEOUT_SECONDS = 60


def find_key(secret: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The API key: of a file, or of a mounted Secret's folder, else of the environment.

    Raises:
        UserError: there is none, or it is not valid in an HTTP header.
    """
    file = secret / KEY_NAME if secret and secret.is_dir() else secret
    if file is not None:
        try:
            key = file.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise UserError("LabelsKeyMissing", f"{file} can't be read: write the API key into it") from error
    else:
        key = environment.get(KEY_NAME, "").strip()
    if not key:
        raise UserError(
            "LabelsKeyMissing", f"there is no API key of Argilla: set {KEY_NAME}, or name a key file"
        )
    if not (key.isascii() and key.isprintable()):
        # Checked here, since HTTP libraries quote an invalid header in their error.
        raise UserError("LabelsKeyMissing", "the API key of Argilla is not one line of ASCII: write it anew")
    return key


@contextmanager
def open_argilla(url: str, key: str) -> "Iterator[argilla.Argilla]":
    """Client of the server; its errors become stage failures within the block.

    Raises:
        UserError: it is not an Argilla server of version 2, or refuses the key, or what is asked of it.
        InfrastructureError: it can't be reached, or fails.
    """
    with _as_unreadable(url):
        _require_version(url)
        _require_key(url, key)
        import argilla

        client = argilla.Argilla(api_url=url, api_key=key, timeout=_TIMEOUT_SECONDS)
        try:
            yield client
        finally:
            client.http_client.close()


def _require_version(url: str) -> None:
    """Check that the server is a supported Argilla, before a key is sent to it."""
    response = _get(url, "version")
    try:
        version = str(response.json()["version"])
        major = int(version.split(".")[0])
    except (ValueError, KeyError, TypeError) as error:
        status = f"HTTP {response.status_code} from /api/v1/version"
        message = (
            f"{url} is not an Argilla server ({status}): write the URL that people open in their browser"
        )
        raise UserError("NotArgilla", message) from error
    if major != SUPPORTED_MAJOR:
        message = (
            f"{url} is Argilla {version}: only version {SUPPORTED_MAJOR} is supported; move its data to one"
        )
        raise UserError("WrongArgillaVersion", message)


def _require_key(url: str, key: str) -> None:
    """Check the key by a request of our own: Argilla's client leaves its connection open if the key is refused."""
    if _get(url, "me", headers={"X-Argilla-Api-Key": key}).status_code == httpx.codes.UNAUTHORIZED:
        raise UserError("LabelsKeyRefused", f"{url} refuses the API key: put a user's key into {KEY_NAME}")


def _get(url: str, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    response = httpx.get(f"{url.rstrip('/')}/api/v1/{path}", headers=headers, timeout=_TIMEOUT_SECONDS)
    if response.is_server_error:
        raise InfrastructureError(
            "LabelsUnavailable", f"{url} fails (HTTP {response.status_code}): try again"
        )
    return response


@contextmanager
def _as_unreadable(url: str) -> Iterator[None]:
    """Context that turns the client's errors into stage failures."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UserError(
            "NotArgilla", f"{url} is not a valid URL ({error}): write an http or https URL"
        ) from error
    except httpx.TransportError as error:
        message = (
            f"{url} can't be reached ({type(error).__name__}: {error}): check that the server is running"
        )
        raise InfrastructureError("LabelsUnavailable", message) from error
    except Exception as error:
        failure = _stage_failure(error, url)
        if failure is None:
            raise
        raise failure from error


def _stage_failure(error: Exception, url: str) -> UserError | InfrastructureError | None:
    """Stage failure for an error of the client; None for other errors."""
    # Known by name: the client may not be imported yet.
    names = {cls.__name__ for cls in type(error).__mro__}
    if "ForbiddenError" in names:
        message = f"{url} forbids it ({error}): use the key of an owner, or of an admin of the workspace"
        return UserError("LabelsForbidden", message)
    if "ArgillaAPIError" in names and getattr(error, "status_code", 0) >= 500:
        return InfrastructureError("LabelsUnavailable", f"{url} fails ({error}): try again")
    if "ArgillaError" in names:
        return UserError("LabelsRefused", f"{url} refuses the request: {error}")
    return None
