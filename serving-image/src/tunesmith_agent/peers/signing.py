"""Codes that tell a request of another agent from one of a client.

A code is bound to the pod, the path and the body. It has no time in it, so clocks need not agree: who repeats a request
of an agent gets what the agent got.
"""

import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signed:
    """Parts of a request that its code is bound to.

    Attributes:
        pod: name of the pod that shall answer.
        sticky: number of the sticky key.
        alias: alias for which the version was chosen; empty if the client named the version.
        client: name of the client whose key the request has; empty where clients need none.
    """

    pod: str
    path: bytes
    sticky: bytes
    alias: bytes
    body: bytes
    client: bytes = b""

    def code(self, key: bytes) -> bytes:
        """Code of the request, in hex: HMAC-SHA256."""
        parts = b"\0".join((self.pod.encode(), self.path, self.sticky, self.alias, self.client, self.body))
        return hmac.digest(key, parts, "sha256").hex().encode()

    def has_code(self, code: bytes, key: bytes) -> bool:
        """True if the code is that of an agent with the same key; without a key none is."""
        return bool(key) and hmac.compare_digest(code, self.code(key))
