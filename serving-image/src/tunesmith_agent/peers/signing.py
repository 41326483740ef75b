"""Codes that tell a request of another agent from one of a client.

A code is bound to the pod, the path and the body. It has no time in it, so clocks need not agree: who repeats a request
of an agent gets what the agent got.
"""

import hmac


def sign(key: bytes, pod: str, path: bytes, sticky: bytes, body: bytes) -> bytes:
    """Code of a request, in hex: HMAC-SHA256.

    Args:
        pod: name of the pod that shall answer.
        sticky: value of the header with the number of the sticky key; empty if it has none.
    """
    parts = b"\0".join((pod.encode(), path, sticky, body))
    return hmac.digest(key, parts, "sha256").hex().encode()


def is_signed(code: bytes, key: bytes, pod: str, path: bytes, sticky: bytes, body: bytes) -> bool:
    """True if the code is that of an agent with the same key; without a key none is."""
    return bool(key) and hmac.compare_digest(code, sign(key, pod, path, sticky, body))
