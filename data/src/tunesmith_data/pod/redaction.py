"""Redaction of secrets in logs and reports."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|API_KEY|PRIVATE_KEY|AUTH|CONNECTION_STRING"
    r"|DOCKERCONFIGJSON",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    r"|(?<=[Bb]earer )[\w.~+/-]{8,}=*"
    r"|(?<=\bAccountKey=)[\w+/]{8,}=*"
    r"|(?<=\bsig=)[\w%+/.~-]{8,}=*"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_SHORTEST_SECRET = 8
REDACTED = "[redacted]"


class Redactor:
    """Replacement of secrets in texts: token-like strings, and variables and mounted keys with secret-like names.

    A variable that holds a path of an existing file is not a secret itself.

    Args:
        environment: the variables.
        secrets: the folder of mounted Secrets; it need not exist.
    """

    def __init__(self, environment: Mapping[str, str], secrets: Path = Path(SECRETS_DIR)) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name) and not os.path.exists(value)
        }
        values.update(_mounted_secrets(secrets))
        self._values = sorted(
            (value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True
        )

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return _SECRET_TEXT.sub(REDACTED, text)


def _mounted_secrets(folder: Path) -> Iterator[str]:
    """Values of the keys that are named like secrets; of a JSON document those of its members that are."""
    for file in folder.glob("*/*"):
        if file.name.startswith("..") or not file.is_file() or not _SECRET_NAME.search(file.name):
            continue
        text = file.read_text(errors="replace").strip()
        try:
            yield from _secret_members(json.loads(text))
        except ValueError:
            yield text


def _secret_members(value: object, secret: bool = False) -> Iterator[str]:
    """Strings below a member that is named like a secret, line by line: a log never shows more than one."""
    match value:
        case dict():
            for name, member in value.items():
                yield from _secret_members(member, bool(_SECRET_NAME.search(name)) and name != "auths")
        case list():
            for member in value:
                yield from _secret_members(member, secret)
        case str() if secret:
            yield from value.splitlines()
        case int():
            yield str(value)
