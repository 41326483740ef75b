"""Entries of the Secret with the keys of clients: strictly checked, each by itself.

No message here has anything of an entry's value, not even the name of a member: whoever writes a bare key, or a key
as a member's name, must not find it in a log.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from tunesmith_contract.agent import MAX_CLIENT_NAME, MAX_CLIENTS

#: Tokens of an answer for which a request without a limit of its own is counted and limited.
DEFAULT_MAX_TOKENS = 4096

_MEMBERS = (
    "key, keys, adapters, requestsPerMinute, tokensPerMinute, defaultMaxTokens, budget: tokens and period"
)
_EXAMPLE = '{"key": "…"}'

Key = Annotated[str, Field(pattern=r"^[!-~]{16,256}$")]
Amount = Annotated[int, Field(ge=1, le=10**15)]


class Period(StrEnum):
    """Period of a budget, in UTC."""

    DAY = "Day"
    MONTH = "Month"


class _Member(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, hide_input_in_errors=True
    )


class Budget(_Member):
    """Tokens of prompts and answers that a client may use in each period."""

    tokens: Amount
    period: Period


class Entry(_Member):
    """Value of one entry; its name is the client's.

    Attributes:
        key, keys: keys of the client, one or several.
        adapters: aliases that it may ask for, ``base`` among them; None: all.
        requests_per_minute, tokens_per_minute: its limits over all pods.
        budget: its budget over all pods.
        default_max_tokens: largest number of tokens of an answer where the request says none.
    """

    key: Key | None = None
    keys: tuple[Key, ...] = Field((), max_length=8)
    adapters: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] | None = Field(
        None, max_length=65
    )
    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    budget: Budget | None = None
    default_max_tokens: Amount = DEFAULT_MAX_TOKENS

    @model_validator(mode="after")
    def _check_keys(self) -> "Entry":
        if (self.key is None) == (not self.keys):
            raise ValueError('write either "key", or "keys" with a list')
        return self

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Digest of each key."""
        return tuple(digest_of(key.encode()) for key in (*self.keys, *([self.key] if self.key else [])))


def digest_of(key: bytes) -> bytes:
    """SHA-256 of a key. Clients are looked up by it, so the time of a look-up says nothing about keys."""
    return hashlib.sha256(key).digest()


@dataclass(frozen=True, slots=True)
class Entries:
    """All entries of a Secret.

    Attributes:
        entries: those that can be used, by the client's name.
        owners: name of the client by the digest of each key.
        faults: why others can't be used, by name.
    """

    entries: Mapping[str, Entry]
    owners: Mapping[bytes, str]
    faults: Mapping[str, str]


def read_entries(folder: Path) -> Entries:
    """Entries of a mounted Secret; a folder that does not exist has none.

    Raises:
        OSError: a file can't be read, perhaps because the Secret is being replaced.
    """
    return parse_entries({path.name: path.read_bytes() for path in list_entries(folder)})


def list_entries(folder: Path) -> list[Path]:
    """Files of the entries of a mounted Secret, ordered by name; a folder that does not exist has none.

    Raises:
        OSError: the folder can't be read, which says nothing about the entries.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    # kubelet's own links begin with two dots.
    return [folder / name for name in sorted(names) if not name.startswith("..")]


def parse_entries(values: Mapping[str, bytes]) -> Entries:
    """Entries from the values of a Secret. Of two clients with the same key, the first by name has it."""
    entries: dict[str, Entry] = {}
    owners: dict[bytes, str] = {}
    faults: dict[str, str] = {}
    for name, value in sorted(values.items()):
        try:
            entry = _parse_entry(name, value)
            digests = entry.digests
            if other := next((owners[digest] for digest in digests if digest in owners), None):
                raise ValueError(f"has a key of client {other}: give each client keys of its own")
            if len(entries) == MAX_CLIENTS:
                raise ValueError(f"is one too many: a Secret may have {MAX_CLIENTS} clients")
        except ValueError as error:
            faults[name[:MAX_CLIENT_NAME]] = _describe(error)
            continue
        entries[name] = entry
        owners |= dict.fromkeys(digests, name)
    return Entries(entries, owners, faults)


def _parse_entry(name: str, value: bytes) -> Entry:
    if len(name) > MAX_CLIENT_NAME:
        raise ValueError(f"has too long a name: use at most {MAX_CLIENT_NAME} characters")
    return Entry.model_validate_json(value)


def _describe(error: ValueError) -> str:
    """What is wrong, without anything of the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    kind = first["type"]
    if kind in ("json_invalid", "model_type"):
        return f"is no JSON object such as {_EXAMPLE}"
    if kind == "extra_forbidden":
        return f"has an unknown member; known are {_MEMBERS}"
    if kind == "value_error":
        return first["msg"].removeprefix("Value error, ")
    member = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    if kind == "string_pattern_mismatch":
        return f"{member}: write 16 to 256 visible ASCII characters without spaces"
    return f"{member}: {first['msg']}"
