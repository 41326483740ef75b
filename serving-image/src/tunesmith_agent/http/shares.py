"""Connections and buffered bytes of each client address, and its fair share of them."""

from .limits import Limits


class AddressShare:
    """Connections and bytes in memory of one client address."""

    __slots__ = ("address", "connections", "held")

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections = self.held = 0


class Shares:
    """Shares of all client addresses.

    Attributes:
        held: bytes in memory of all addresses together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.buffered_bytes
        self._half = limits.buffered_bytes // 2
        self._by_address: dict[str, AddressShare] = {}
        self._holders = 0
        self.held = 0

    def enter(self, address: str) -> AddressShare:
        """Count a new connection of an address."""
        share = self._by_address.get(address)
        if share is None:
            share = self._by_address[address] = AddressShare(address)
        share.connections += 1
        return share

    def leave(self, share: AddressShare) -> None:
        """Forget a connection."""
        share.connections -= 1
        if not share.connections:
            del self._by_address[share.address]

    def hold(self, share: AddressShare, size: int) -> bool:
        """Count bytes, negative ones when they are released; False if the address now holds more than its share."""
        if not share.held:
            self._holders += 1
        share.held += size
        self.held += size
        if not share.held:
            self._holders -= 1
        if self.held <= self._half:
            return True
        return self.held <= self._limit and share.held * self._holders <= self._half
