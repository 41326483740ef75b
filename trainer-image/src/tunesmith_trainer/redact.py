"""Takes secrets out of what is logged or reported."""

import os
import re
from collections.abc import Mapping

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    r"|(?<=[Bb]earer )[\w.~+/-]{8,}=*"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_SHORTEST_SECRET = 8
REDACTED = "[redacted]"


class Redactor:
    """Replaces what looks like a token, and the values of environment variables that are named like secrets.

    A variable that holds a path of an existing file is not a secret itself.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and not os.path.exists(value)
        }
        self._values = sorted(values, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return _SECRET_TEXT.sub(REDACTED, text)
