"""Stickiness key of a request, which keeps a client on one side of a rollout, and its bucket.

Every pod computes the same bucket from the request alone, and a growing weight only ever adds clients to the
candidate.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any
from zlib import crc32

import orjson

from tunesmith_contract.agent import BUCKETS, STICKINESS_HEADER

_HEADER = STICKINESS_HEADER.encode()
_FIELDS = ("safety_identifier", "prompt_cache_key", "user")
#: Key of a request that says nothing about its client.
NO_KEY = b"null"
#: Roles of instructions; a tuple, as the role of a message may be anything.
_INSTRUCTIONS = ("system", "developer")


def stickiness_key(headers: dict[bytes, bytes], body: dict[str, Any]) -> bytes:
    """Value of the header, else the first identifier in the body, else the first message or the prompt.

    Instructions (system and developer messages) are the same for all clients of an application, so the first
    message is the first that is not one of them; for completions it is the prompt, for other endpoints the input.
    """
    if key := headers.get(_HEADER):
        return key
    for field in _FIELDS:
        if (value := body.get(field)) and isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
    return orjson.dumps(_first_message(body))


def _first_message(body: dict[str, Any]) -> Any:
    """First message that is not an instruction; the prompt of a completion, or a plain input."""
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list):
        return messages if isinstance(messages, str) else body.get("prompt")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _INSTRUCTIONS:
            return message
    return messages[:1]


def key_number(key: bytes) -> int:
    """Number by which requests of a client are told apart: the same in all pods, and cheap (CRC-32).

    Clients that share one count as one; that is rare, and says only a little less.
    """
    return crc32(key)


def bucket(digest: str, alias: str, key: bytes) -> int:
    """Bucket of a key, 0 to BUCKETS - 1: uniform over keys, independent between candidates and aliases."""
    return int.from_bytes(blake2b(_seed(digest, alias) + key, digest_size=8).digest()) % BUCKETS


@lru_cache(maxsize=1024)
def _seed(digest: str, alias: str) -> bytes:
    return b"%b\0%b\0" % (digest.encode(), alias.encode())


def threshold(weight: int) -> int:
    """Number of buckets that go to the candidate; ``weight`` is in percent."""
    return weight * BUCKETS // 100
