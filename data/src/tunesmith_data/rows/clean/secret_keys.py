"""Detection of keys and passwords by the patterns of detect-secrets."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

# Words that a text must contain before a plugin examines it: searching for them is cheap.
_MARKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "AWSKeyDetector": ("AKIA", "ASIA", "ABIA", "ACCA", "A3T", "aws", "AWS"),
        "AzureStorageKeyDetector": ("AccountKey=",),
        "BasicAuthDetector": ("://",),
        "GitHubTokenDetector": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        "GitLabTokenDetector": (
            "glpat-",
            "gldt-",
            "glft-",
            "glsoat-",
            "glrt-",
            "GR1348941",
            "glcbt-",
            "glimt-",
        ),
        "JwtTokenDetector": ("eyJ",),
        "NpmDetector": ("_authToken",),
        "OpenAIDetector": ("T3BlbkFJ",),
        "PrivateKeyDetector": ("PRIVATE KEY", "PuTTY-User-Key-File-2"),
        "PypiTokenDetector": ("pypi-",),
        "SendGridDetector": ("SG.",),
        "SlackDetector": ("xox", "hooks.slack.com"),
        "SquareOAuthDetector": ("sq0csp-",),
        "StripeDetector": ("sk_live_", "rk_live_"),
    }
)

# What detect-secrets doesn't know: keys of model providers.
_MORE_MARKS = ("hf_", "sk-ant-", "sk-proj-", "AIza")
_MORE = re.compile(r"\b(?:hf_[A-Za-z0-9]{30,}|sk-(?:ant|proj)-[\w-]{20,}|AIza[\w-]{35})")

#: All of these words as one pattern, which RE2 searches for in one pass.
MARKS = "|".join(re.escape(mark) for mark in (*chain.from_iterable(_MARKS.values()), *_MORE_MARKS))

_REST_OF_TOKEN = re.compile(r"[\w+/=-]*(?:\.[\w+/=-]+)*")
# Up to the line that ends it or, where that was cut off, as far as it looks like a key.
_REST_OF_PRIVATE_KEY = re.compile(r".*?-----END [A-Z0-9 ]+-----|-*\s*(?:[A-Za-z0-9+/=]{16,}\s?)*", re.DOTALL)
_LEAST_KEY = 16
_BEGIN_OF_PRIVATE_KEY = "-----"


class SecretKeyFinder:
    """Finder of keys and passwords."""

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans of keys; they may overlap."""
        for name, marks in _MARKS.items():
            if any(mark in text for mark in marks):
                yield from _find_by(self._plugins[name], text)
        if any(mark in text for mark in _MORE_MARKS):
            yield from (match.span() for match in _MORE.finditer(text))

    @cached_property
    def _plugins(self) -> dict[str, "RegexBasedDetector"]:
        # Imported for the first text that may hold a key: most data hold none.
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

        plugins: dict[str, Any] = get_mapping_from_secret_type_to_class()
        classes = {plugin.__name__: plugin for plugin in plugins.values()}
        return {name: classes[name]() for name in _MARKS}


def _find_by(plugin: "RegexBasedDetector", text: str) -> Iterator[tuple[int, int]]:
    name = type(plugin).__name__
    for match in (match for pattern in plugin.denylist for match in pattern.finditer(text)):
        if name == "PrivateKeyDetector":
            yield _private_key(match)
        elif name == "BasicAuthDetector":
            # A password without a digit is an example.
            if any(letter.isdigit() for letter in match[1]):
                yield match.span(1)
        elif name != "JwtTokenDetector" or next(plugin.analyze_string(match[0]), None):
            # Of some the first group is the key behind its name, of others no more than its prefix.
            is_named = match.re.groups and len(match[1] or "") >= _LEAST_KEY
            begin, end = match.span(1 if is_named else 0)
            yield begin, _REST_OF_TOKEN.match(text, end).end()  # type: ignore[union-attr] # It may be empty.


def _private_key(match: re.Match[str]) -> tuple[int, int]:
    """Span of a private key, from its first line to its last."""
    text, begin = match.string, match.start()
    if text[:begin].endswith(_BEGIN_OF_PRIVATE_KEY):
        begin -= len(_BEGIN_OF_PRIVATE_KEY)
    return begin, _REST_OF_PRIVATE_KEY.match(text, match.end()).end()  # type: ignore[union-attr] # It may be empty.
