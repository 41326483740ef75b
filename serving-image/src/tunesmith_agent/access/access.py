"""All clients of the pod, as the mounted Secret names them; read again whenever it changes."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from tunesmith_agent.http.messages import Refusal, Request
from tunesmith_agent.routing.table import RoutingTable
from tunesmith_contract.agent import (
    MAX_CLIENT_FAULTS,
    MAX_USAGE,
    AccessReport,
    ClientFault,
    ClientUsage,
    DesiredState,
    UsageOfOthers,
)

from .clients import UNKNOWN_PODS, Charge, Client, Shared
from .entries import digest_of, list_entries, read_entries
from .ledger import Ledger
from .pod_shares import divide

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0

_BEARER = b"bearer "
_CHALLENGE = b"www-authenticate: Bearer\r\n"
_NO_KEY = Refusal(
    401,
    "You did not send a key: send it in the header Authorization as a bearer token.",
    code="invalid_api_key",
    headers=_CHALLENGE,
)
_UNKNOWN_KEY = Refusal(
    401,
    "The key is not known here: ask whoever runs this service for one.",
    code="invalid_api_key",
    headers=_CHALLENGE,
)

Identity = tuple[tuple[str, int, int], ...]


class Access:
    """Clients by the digests of their keys.

    Args:
        folder: the mounted Secret.
        kept: file on the pod's disk for what clients have used.
        is_connected: tells if the operator is connected.
        clock: seconds by a clock that never jumps.
        wall_clock: POSIX time.
    """

    def __init__(
        self,
        folder: Path,
        kept: Path,
        is_connected: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._shared = Shared(clock, wall_clock, is_connected, Ledger(kept))
        self._clients: dict[str, Client] = {}
        self._by_digest: Mapping[bytes, Client] = {}
        self._faults: Mapping[str, str] = {}
        self._last_read: Identity | None = None

    @property
    def clients(self) -> tuple[Client, ...]:
        """All clients with a usable entry, ordered by name."""
        return tuple(self._clients.values())

    @property
    def fault_count(self) -> int:
        """Number of entries that can't be used."""
        return len(self._faults)

    @property
    def not_ready_reason(self) -> str:
        """Reason why clients would be refused for no fault of theirs; empty once the Secret was read."""
        return "" if self._last_read is not None else "The keys of clients are not readable."

    # -- requests

    def identify(self, request: Request) -> Client | Refusal:
        """Client whose key a request has."""
        derived = request.derived
        if derived is not None and derived.get("clients") is self._by_digest:
            known: Client = derived["client"]
            return known
        value = request.headers.get(b"authorization")
        if value is None or value[:7].lower() != _BEARER:
            return _NO_KEY
        client = self._by_digest.get(digest_of(value[7:].strip()))
        if client is None:
            return _UNKNOWN_KEY
        if derived is not None:
            # For as long as no entry changes: then there is another table.
            derived["clients"], derived["client"] = self._by_digest, client
        return client

    def find(self, name: str) -> Client | None:
        """Client of this name."""
        return self._clients.get(name)

    def admit(self, name: str, path: bytes, body: dict[str, Any], size: int) -> Charge | Refusal:
        """Take a request from the limits of the client of this name, or refuse it; see ``Client.admit``."""
        # Its key may have been taken away while the request waited.
        client = self._clients.get(name)
        return _UNKNOWN_KEY if client is None else client.admit(path, body, size)

    def models_body(self, client: Client, table: RoutingTable) -> bytes:
        """Body of ``GET /v1/models`` with the names that a client may use."""
        if client.adapters is None:
            return table.models_body
        document = orjson.loads(table.models_body)
        document["data"] = [model for model in document["data"] if client.may_use(model["id"])]
        return orjson.dumps(document)

    # -- operator

    def learn(self, usage: UsageOfOthers) -> None:
        """Take over what other pods have counted."""
        self._shared.ledger.learn(usage)

    def follow(self, state: DesiredState, own_name: str) -> None:
        """Take over how the pods of a state divide the limits.

        Args:
            own_name: name of this pod.
        """
        shares = divide(state, own_name, UNKNOWN_PODS)
        if shares != self._shared.shares:
            self._shared.shares = shares
            for client in self._clients.values():
                client.share_limits()

    def report(self) -> AccessReport:
        """Report on clients to the operator."""
        faults = sorted(self._faults.items())[:MAX_CLIENT_FAULTS]
        usage = (usage for client in self._clients.values() for usage in self._usage_of(client))
        return AccessReport(
            run=self._shared.ledger.run,
            clients=len(self._clients),
            fault_count=len(self._faults),
            faults=tuple(ClientFault(client=name, message=text[:512]) for name, text in faults),
            usage=tuple(islice(usage, MAX_USAGE)),
        )

    def _usage_of(self, client: Client) -> list[ClientUsage]:
        budget, shared = client.budget, self._shared
        if budget is None:
            return []
        # Opens the account of a period that has just begun, so that the operator hears of it.
        shared.ledger.account(client.name, shared.calendar.name(budget.period, shared.wall_clock()))
        return [
            ClientUsage(
                client=client.name,
                period=period,
                tokens=account.own,
                budget=budget.tokens,
                others=account.others,
            )
            for period, account in shared.ledger.accounts(client.name).items()
        ]

    # -- Secret and disk

    def load(self) -> None:
        """Read the Secret, and what was kept on the pod's disk."""
        self._shared.ledger.load()
        self.refresh()

    async def run(self) -> None:
        """Look for changes of the Secret, and keep what clients have used, until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                self.refresh()
                self._shared.ledger.keep()
        finally:
            self._shared.ledger.keep()

    def refresh(self) -> None:
        """Read the Secret if it has changed; where that fails, the clients stay as they are."""
        try:
            identity = _identity(self._folder)
            if identity == self._last_read:
                return
            entries = read_entries(self._folder)
        except OSError as error:
            log.warning("the keys of clients are not readable", extra={"error": error.strerror})
            return
        self._last_read = identity
        known, self._clients = self._clients, {}
        for name, entry in entries.entries.items():
            client = self._clients[name] = known.get(name) or Client(name, entry, self._shared)
            client.update(entry)
        self._by_digest = {digest: self._clients[name] for digest, name in entries.owners.items()}
        for name, message in entries.faults.items():
            if self._faults.get(name) != message:
                log.warning("entry of a client can't be used", extra={"client": name, "detail": message})
        self._faults = entries.faults
        log.info("clients with keys", extra={"clients": len(self._clients), "faults": len(self._faults)})


def _identity(folder: Path) -> Identity:
    """What changes whenever a file does: kubelet swaps a link, and the files behind it have other numbers."""
    statuses = ((path.name, path.stat()) for path in list_entries(folder))
    return tuple((name, status.st_ino, status.st_mtime_ns) for name, status in statuses)
