"""Protocol between the operator and the serving agents.

An agent holds one WebSocket to the operator (``AGENT_PATH``, bearer token of audience ``TOKEN_AUDIENCE``). It sends an
``AgentReport`` when something changed and at least every few seconds; the operator sends a ``DesiredState`` when its
generation grew. The same state is mounted from a ConfigMap; the higher generation wins.

Operator and agents may be of different releases. Each ignores keys that it does not know. An agent tells by name which
of the later fields it understands (``FEATURES``), and the digest of the state that it applied. The operator leaves out
what an agent does not understand. Agents of the first release refuse unknown keys: they read ``DESIRED_FILE``, which
never gets further fields; all others prefer ``STATE_FILE``.
"""

import hmac
from collections.abc import Iterable
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Literal

from pydantic import Field

from .base import Digest, Report, canonical_json, sha256_digest, short_digest

AGENT_PATH = "/agent/v1/namespaces/{namespace}/adapterdeployments/{name}"
#: The desired state in the form of the first release.
DESIRED_FILE = "desired.json"
#: The whole desired state.
STATE_FILE = "state.json"

#: Response headers that say which version answered. In a request the first one asks for a version.
VERSION_HEADER = "x-tunesmith-version"
DIGEST_HEADER = "x-tunesmith-digest"
#: Response header with the names of fields that were left out of a request.
IGNORED_HEADER = "x-tunesmith-ignored"
#: Request header whose value keeps a client on one side of a rollout.
STICKINESS_HEADER = "x-tunesmith-key"

#: Request header of a request that one agent forwards to another: the message authentication code of the request.
FORWARDED_HEADER = "x-tunesmith-forwarded"
#: Number of the client's sticky key in such a request.
FORWARDED_KEY_HEADER = "x-tunesmith-forwarded-key"
#: Alias for which the first agent has chosen the version; absent if the client named the version.
FORWARDED_ALIAS_HEADER = "x-tunesmith-forwarded-alias"
#: Name of the client whose key the request has; absent where clients need none.
FORWARDED_CLIENT_HEADER = "x-tunesmith-forwarded-client"
#: Status by which an agent says that it has done nothing for such a request: another pod may answer it.
NOT_ANSWERED_HERE = 421
#: The name under which clients ask for the base model without an adapter; no alias has it.
BASE_MODEL_NAME = "base"

BUCKETS = 10_000
MAX_REJECTED_DIGESTS = 20

#: Entries of the Secret with the keys of clients; of each, the current period and the one before are reported.
MAX_CLIENTS = 250
MAX_USAGE = 2 * MAX_CLIENTS
MAX_TOKENS = 10**18
MAX_CLIENT_NAME = 63
MAX_CLIENT_FAULTS = 8

#: Fields of ``DesiredAlias`` and ``DesiredState`` that were added after the first release, as agents name them in their
#: reports.
PREVIOUS = "previous"
REJECTED = "rejected"
PEERS = "peers"
OTHER = "other"
PODS = "pods"
FEATURES = (PREVIOUS, REJECTED, PEERS, OTHER, PODS)

#: Highest count of requests, and of sums of their squares, that is believed: these can still be calculated with.
MAX_COUNT = 10**36
#: Highest generation of a pod that the operator goes beyond. Status has room for as many again.
MAX_GENERATION = 2**62

#: Bits of a generation that count within one term of a leader.
_NUMBER_BITS = 32


def first_generation(term: int) -> int:
    """Lowest generation of a leader's term; it is above all generations of earlier terms.

    Args:
        term: the number of times that the operator's lease changed hands.
    """
    return term << _NUMBER_BITS


class Version(Report):
    """One version of an alias: ``version`` counts from 1 within the alias, ``digest`` identifies its artifact."""

    version: int = Field(ge=1)
    digest: Digest
    uri: str


class DesiredAlias(Report):
    """Versions to be served under one alias.

    ``weight`` is the candidate's share in percent. Without a stable version (the first one still loads) the alias
    answers 503.

    Attributes:
        previous: the version that was stable before; it stays loaded without requests, for an instant rollback.
        rejected: digests that were rolled back, the latest first; a restarted agent gives them no requests, whatever an
            old file says.
    """

    name: str
    stable: Version | None = None
    candidate: Version | None = None
    weight: int = Field(0, ge=0, le=100)
    previous: Version | None = None
    rejected: tuple[Digest, ...] = Field((), max_length=MAX_REJECTED_DIGESTS)


class OtherModel(Report):
    """Versions to be served by the pods on another base model, while there are pods on two.

    Attributes:
        base_model: URI of that base model.
        aliases: what its pods serve in place of the aliases of the state.
        current: URI of the base model that the aliases of the state are for.
    """

    base_model: str
    aliases: tuple[DesiredAlias, ...] = Field((), max_length=64)
    current: str = ""


class Peer(Report):
    """A pod whose agent answers requests that other pods' agents forward to it.

    Attributes:
        name: name of the pod.
        host: IP address of the pod.
        port: port of its agent for clients.
        homes: names of the aliases that are at home on this pod, sorted. An alias that no peer names is at home on
            every pod.
    """

    name: str
    host: str
    port: int = Field(ge=1, le=65535)
    homes: tuple[str, ...] = ()


class DesiredState(Report):
    """State that every pod of an AdapterDeployment shall serve.

    ``peers`` are the pods that answer requests for each other, ordered by name; empty if there is only one.
    ``generation`` grows with each change: it counts within the term of the leader that wrote it, in its low bits
    (``first_generation``), so a leader that was replaced can't overrule its successor.

    Attributes:
        pods: number of pods that share the limits of clients; None where clients need no keys.
    """

    schema_version: Literal[1] = 1
    generation: int = Field(ge=0)
    aliases: tuple[DesiredAlias, ...] = Field((), max_length=64)
    peers: tuple[Peer, ...] = ()
    other: OtherModel | None = None
    pods: int | None = Field(None, ge=1)

    def for_base_model(self, uri: str) -> "DesiredState":
        """This state as pods on this base model serve it."""
        if self.other is None or self.other.base_model != uri:
            return self.model_copy(update={"other": None})
        # Peers are the pods that serve the aliases of the state.
        return self.model_copy(update={"aliases": self.other.aliases, "peers": (), "other": None})

    def for_features(self, features: Iterable[str]) -> "DesiredState":
        """This state without the fields that an agent with these features does not understand."""
        unknown = set(FEATURES).difference(features)
        of_alias, of_state = (
            {name: fields[name].default for name in unknown & fields.keys()}
            for fields in (DesiredAlias.model_fields, DesiredState.model_fields)
        )
        aliases = tuple(alias.model_copy(update=of_alias) for alias in self.aliases)
        return self.model_copy(update={**of_state, "aliases": aliases})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; fields with their default value are left out but the weight, as in the first release."""
        document = super().to_dict()
        for alias in (*document["aliases"], *document.get("other", {}).get("aliases", ())):
            if not alias["rejected"]:
                del alias["rejected"]
        if not document["peers"]:
            del document["peers"]
        return document

    def digest(self) -> str:
        """Digest of the aliases and the generation, the same in every release that understands these fields."""
        return sha256_digest(canonical_json(self.to_dict()))


class SentState(DesiredState):
    """Desired state as the operator sends it to an agent.

    Attributes:
        peer_key: secret that the agents of an AdapterDeployment share, in hex. It travels on this connection alone: no
            file and no object of the cluster has it.
    """

    peer_key: str = Field("", repr=False)


class LoadState(StrEnum):
    """State of one version on one pod."""

    FETCHING = "Fetching"
    LOADING = "Loading"
    PROVING = "Proving"
    ACTIVE = "Active"
    DRAINING = "Draining"
    FAILED = "Failed"


#: ``LoadedVersion.reason`` of a version whose answers, measured several times, are not its manifest's.
PROOF_FAILED = "ProofFailed"
#: ``LoadedVersion.reason`` of an active version whose effect is too small to be told from noise.
UNPROVEN = "Unproven"


class LoadedVersion(Report):
    """One version on one pod.

    Attributes:
        reason, message: why it failed, or what is uncertain.
        breaker_open: it failed so many requests in a row on this pod that it gets no more of them.
        breaker_clients: effective number of the clients that saw these errors, rounded down; 0 from agents that do not
            tell.
        permanent: it failed for a reason that no other try and no other pod can mend.
    """

    alias: str
    digest: Digest
    state: LoadState
    reason: str = Field("", max_length=64)
    message: str = Field("", max_length=512)
    breaker_open: bool = False
    breaker_clients: int = Field(0, ge=0, le=MAX_COUNT)
    permanent: bool = False


class VersionCounters(Report):
    """Requests of one version on one pod since the agent started, by their end.

    The sums over keys tell how much requests of one client (sticky key) fail together. A key is counted anew in each
    step of a rollout. With ``n`` requests of a key in a step, of which ``f`` were errors or abandoned:

    Attributes:
        requests: answered, errors and abandoned together.
        errors: answers with a 5xx status of the version, and broken streams.
        abandoned: left by the client after it had waited long for a token.
        engine_lost: ended because the engine of the pod was gone; not in ``requests``.
        refused: not sent to the version though it had been chosen; not in ``requests``.
        recent: requests of late: each counts half after ten minutes; 0 from agents that do not tell.
        keys: number of keys.
        requests_squared: sum of n².
        failures_squared: sum of f².
        requests_failures: sum of n·f.
    """

    alias: str
    digest: Digest
    requests: int = Field(0, ge=0, le=MAX_COUNT)
    errors: int = Field(0, ge=0, le=MAX_COUNT)
    abandoned: int = Field(0, ge=0, le=MAX_COUNT)
    engine_lost: int = Field(0, ge=0, le=MAX_COUNT)
    refused: int = Field(0, ge=0, le=MAX_COUNT)
    keys: int = Field(0, ge=0, le=MAX_COUNT)
    requests_squared: int = Field(0, ge=0, le=MAX_COUNT)
    failures_squared: int = Field(0, ge=0, le=MAX_COUNT)
    requests_failures: int = Field(0, ge=0, le=MAX_COUNT)
    recent: int = Field(0, ge=0, le=MAX_COUNT)


class ClientUsage(Report):
    """Tokens of one client with a budget in one period, as one pod knows them.

    Attributes:
        client: entry of the Secret.
        period: the day (``2030-01-15``) or the month (``2030-01``) in UTC.
        tokens: prompts and answers that this pod has counted.
        budget: most tokens of the client in this period.
        others: tokens that all others have counted, as the operator said last; None: it has said nothing yet.
    """

    client: str = Field(max_length=MAX_CLIENT_NAME)
    period: str = Field(max_length=10)
    tokens: int = Field(ge=0, le=MAX_TOKENS)
    budget: int = Field(ge=1, le=MAX_TOKENS)
    others: int | None = Field(None, ge=0)


class ClientFault(Report):
    """Entry of the Secret that can't be used; the message has nothing of its value."""

    client: str = Field(max_length=MAX_CLIENT_NAME)
    message: str = Field(max_length=512)


class AccessReport(Report):
    """Clients of one pod that asks them for keys.

    Attributes:
        run: new whenever the counts of tokens start from zero.
        clients: number of clients that have a usable entry.
        fault_count: number of entries that can't be used.
        faults: the first of them by name.
        usage: tokens of the clients with budgets.
    """

    run: str = Field(max_length=64)
    clients: int = Field(0, ge=0)
    fault_count: int = Field(0, ge=0)
    faults: tuple[ClientFault, ...] = Field((), max_length=MAX_CLIENT_FAULTS)
    usage: tuple[ClientUsage, ...] = Field((), max_length=MAX_USAGE)


class CountedTokens(Report):
    """Tokens of one client that all pods but the receiver have counted in one period."""

    client: str
    period: str
    tokens: int = Field(ge=0)


class UsageOfOthers(Report):
    """Message of the operator to one agent, beside ``DesiredState``; only to agents whose report has ``access``."""

    counted_by_others: tuple[CountedTokens, ...]


class AgentReport(Report):
    """The state of one serving pod.

    Attributes:
        boot_id: new whenever the counters start from zero.
        applied_generation: generation of the desired state that is applied.
        applied_digest: ``DesiredState.digest`` of it; empty from agents of the first release.
        features: the later fields of the desired state that this agent understands.
        access: the clients with keys; None where none are asked for.
        adapter_slots: number of adapters that its engine keeps in memory; 0: unknown.
    """

    schema_version: Literal[1] = 1
    pod_name: str = Field(max_length=253)
    pod_uid: str = Field(max_length=64)
    boot_id: str = Field(max_length=64)
    engine_ready: bool
    applied_generation: int = Field(ge=0, lt=2 * MAX_GENERATION)
    applied_digest: str = ""
    features: tuple[str, ...] = ()
    versions: tuple[LoadedVersion, ...] = ()
    counters: tuple[VersionCounters, ...] = ()
    access: AccessReport | None = None
    adapter_slots: int = Field(0, ge=0)


def derive_peer_key(secret: bytes, owner_uid: str) -> str:
    """Key that the agents of one AdapterDeployment share, in hex: HMAC-SHA256 of its UID.

    Args:
        secret: secret of the operator's installation.
    """
    return hmac.digest(secret, b"tunesmith peers\0" + owner_uid.encode(), "sha256").hex()


def rendezvous_score(*parts: bytes) -> int:
    """Weight of a pairing in rendezvous hashing: 64 bits, uniform and independent for each tuple of parts.

    The pod with the highest weight gets the item, so that a pod that comes or goes moves only its own items (Thaler and
    Ravishankar, 1998).
    """
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest())


def served_name(alias: str, digest: str) -> str:
    """Name of a version in the engine, never used for anything else: ``<alias>@<digest12>``."""
    return f"{alias}@{short_digest(digest)}"
