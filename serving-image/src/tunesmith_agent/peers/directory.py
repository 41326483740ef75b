"""Peers of this pod: connections to each, and the aliases that are at home on it."""

from collections.abc import Iterable
from dataclasses import replace

from tunesmith_agent.http.address import TcpAddress
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.upstream import UpstreamPool
from tunesmith_agent.routing.homes import Homes
from tunesmith_contract.agent import Peer

#: Age at which an idle connection to a peer is not used again; less than the peer's own limit.
IDLE_SECONDS = 30.0
#: Time for a connection to a peer, and again for its consent to a request: its network is near, its agent never busy.
ANSWER_SECONDS = 1.0
#: Time for which a peer that could not be reached is left out: the first one, doubled each time, and the longest.
LEFT_OUT_SECONDS, LONGEST_LEFT_OUT_SECONDS = 1.0, 30.0
#: Time for which a peer is not asked again for a version that it did not hold.
NOT_HELD_SECONDS = 1.0


class PeerLink:
    """Connections to the agent of one pod, and its health as requests find it."""

    def __init__(self, peer: Peer, limits: Limits) -> None:
        self.name = peer.name
        self.address = (peer.host, peer.port)
        self.pool = UpstreamPool(TcpAddress(peer.host, peer.port), limits)
        self._left_out_seconds = LEFT_OUT_SECONDS
        self._left_out_until = 0.0
        self._not_held: dict[str, float] = {}

    def is_usable(self, version: str) -> bool:
        """False for a while after it could not be reached, or did not hold the version."""
        now = self.pool.loop.time()
        return now >= self._left_out_until and now >= self._not_held.get(version, 0.0)

    def fail(self) -> None:
        """Leave the peer out for a while, and longer each time."""
        self._left_out_until = self.pool.loop.time() + self._left_out_seconds
        self._left_out_seconds = min(2 * self._left_out_seconds, LONGEST_LEFT_OUT_SECONDS)

    def lack(self, version: str) -> None:
        """Note that the peer does not hold a version."""
        now = self.pool.loop.time()
        self._not_held = {name: until for name, until in self._not_held.items() if until > now}
        self._not_held[version] = now + NOT_HELD_SECONDS

    def succeed(self) -> None:
        """Note that the peer was reached."""
        self._left_out_seconds = LEFT_OUT_SECONDS


class PeerDirectory:
    """Peers of this pod, as the desired state says.

    Args:
        own_name: name of this pod.
        limits: limits of the data path.

    Attributes:
        key: secret that the agents share; empty until the operator has sent it.
        everywhere: all pods; None where nothing can be forwarded: there is no other pod, or the key is missing.
    """

    def __init__(self, own_name: str, limits: Limits) -> None:
        self.own_name = own_name
        self.key = b""
        self.everywhere: Homes | None = None
        self._limits = replace(limits, engine_idle_seconds=IDLE_SECONDS, connect_seconds=ANSWER_SECONDS)
        self._peers: tuple[Peer, ...] = ()
        self._links: dict[str, PeerLink] = {}
        self._homes: dict[str, Homes] = {}

    def update(self, peers: Iterable[Peer]) -> None:
        """Take over the peers; requests that are on their way to one that is gone may end."""
        peers = tuple(peers)
        if peers == self._peers:
            return
        self._peers = peers
        others = {peer.name: peer for peer in peers if peer.name != self.own_name}
        for name, link in tuple(self._links.items()):
            peer = others.get(name)
            if peer is None or link.address != (peer.host, peer.port):
                link.pool.retire()
                del self._links[name]
        for name, peer in others.items():
            if name not in self._links:
                self._links[name] = PeerLink(peer, self._limits)
        self._set_everywhere()
        pods: dict[str, list[str]] = {}
        for peer in peers if others else ():
            for alias in peer.homes:
                pods.setdefault(alias, []).append(peer.name)
        self._homes = {alias: Homes(names) for alias, names in pods.items()}

    def use_key(self, key: bytes) -> None:
        """Take over the secret; an empty one: nothing is forwarded."""
        self.key = key
        self._set_everywhere()

    def _set_everywhere(self) -> None:
        names = [peer.name for peer in self._peers]
        self.everywhere = Homes(names, only_lacking=True) if self._links and self.key else None

    def homes(self, alias: str, *, is_complete: bool) -> Homes | None:
        """Pods that answer the alias; None if this one does.

        Args:
            is_complete: this pod has proven all versions of the alias that get requests.
        """
        if self.everywhere is None:
            return None
        homes = self._homes.get(alias)
        if homes is None:
            return None if is_complete else self.everywhere
        return None if is_complete and homes.names == (self.own_name,) else homes

    def find(self, name: str, version: str) -> PeerLink | None:
        """Connections to a pod for a version; None for this pod, and for one that can't answer now."""
        link = self._links.get(name)
        return link if link is not None and link.is_usable(version) else None

    def load(self, name: str) -> int:
        """Number of requests from here in progress on a pod; of this pod it is less than of any other."""
        link = self._links.get(name)
        return -1 if link is None else link.pool.busy

    def close(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            link.pool.close()
