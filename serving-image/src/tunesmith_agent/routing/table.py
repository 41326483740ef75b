"""Routing table: immutable map of model names to versions, replaced as a whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from tunesmith_agent.metrics import VersionStats
from tunesmith_contract.agent import DIGEST_HEADER, IGNORED_HEADER, VERSION_HEADER, served_name
from tunesmith_contract.answer_formats import Switch

from .gate import Gate
from .homes import Homes
from .stickiness import bucket


@dataclass(frozen=True, slots=True)
class Target:
    """Version that can answer: its name in the engine, its response headers and its counters.

    Attributes:
        gate: open while the engine holds the version; None for the base model, which it always does.
        switches: arguments of the chat template that it was trained with; None if the client's are passed on.
        is_here: False if this pod has not proven the version: only other pods can answer.
    """

    name: str
    headers: bytes
    stats: VersionStats
    gate: Gate | None = None
    switches: Mapping[str, Switch] | None = None
    is_here: bool = True

    def ignoring(self, fields: Iterable[str]) -> "Target":
        """The target for a request of which these fields were left out: the answer names them."""
        line = f"{IGNORED_HEADER}: {', '.join(fields)}\r\n"
        return replace(self, headers=self.headers + line.encode())


def build_target(
    alias: str, digest: str, stats: VersionStats, gate: Gate, switches: Mapping[str, Switch] | None = None
) -> Target:
    """Target of one active version."""
    name = served_name(alias, digest)
    headers = f"{VERSION_HEADER}: {name}\r\n{DIGEST_HEADER}: {digest}\r\n".encode()
    return Target(name, headers, stats, gate, switches)


def build_distant_target(alias: str, digest: str) -> Target:
    """Target of a version that only other pods have."""
    return Target(served_name(alias, digest), b"", VersionStats(alias, digest), is_here=False)


def build_base_target(name: str, stats: VersionStats) -> Target:
    """Target of the base model without any adapter."""
    return Target(name, f"{VERSION_HEADER}: {name}\r\n".encode(), stats)


@dataclass(frozen=True, slots=True)
class Route:
    """Versions behind one model name.

    Attributes:
        model: the name that clients send.
        stable: answers unless the candidate does; None where it can't, for the reason in ``unavailable_reason``.
        candidate: answers keys whose bucket is below ``threshold``.
        candidate_digest: seeds the buckets.
        uses_keys: the sticky key of each request is needed, to choose or as evidence.
        homes: pods that answer its requests; None if this one answers them all.
        substitute: answers here where the chosen version is not here, and no other pod answers.
        instead: answers requests for the alias that another pod has chosen this version for, as its breaker is open.
    """

    model: str
    stable: Target | None
    candidate: Target | None = None
    candidate_digest: str = ""
    threshold: int = 0
    unavailable_reason: str = ""
    uses_keys: bool = False
    homes: Homes | None = None
    substitute: Target | None = None
    instead: Target | None = None

    def pick(self, key: bytes) -> Target | None:
        """Target of the request with this sticky key."""
        if self.candidate is None or not self.threshold:
            return self.stable
        if bucket(self.candidate_digest, self.model, key) < self.threshold:
            return self.candidate
        return self.stable


@dataclass(frozen=True)
class RoutingTable:
    """Routes by the names that a client may send as ``model``."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    models_body: bytes = b'{"object":"list","data":[]}'

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.routes)


def build_table(routes: Iterable[Route], created: int) -> RoutingTable:
    """Table of routes; ``GET /v1/models`` lists those that can answer, with ``created`` (Unix seconds)."""
    by_name = {route.model: route for route in routes}
    answering = [route.model for route in by_name.values() if route.stable or route.candidate]
    models = [
        {"id": name, "object": "model", "created": created, "owned_by": "tunesmith"}
        for name in sorted(answering)
    ]
    return RoutingTable(by_name, orjson.dumps({"object": "list", "data": models}))
