"""Home pods of aliases: rendezvous hashing with bounded load, and few moves. Pure.

Where the adapters of all aliases fit into the slots of every pod, every pod is home of all. Elsewhere each alias has a
few homes, on which its versions stay in the engine, and other pods hand its requests on to them.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tunesmith_contract.agent import rendezvous_score

#: Slots that an alias takes: during a rollout it has two versions, and for a while after it the previous one.
SLOTS_OF_ALIAS = 2
#: Homes of each alias where the slots suffice, so that it has one left when a pod goes.
HOMES = 2
#: A pod holds at most this multiple of its fair share (consistent hashing with bounded loads, Mirrokni et al., 2018).
LOAD_FACTOR = 1.25
#: Moves from one pod that stays to another in one pass: each costs conversations their prefix cache.
MOVES = 4
#: Requests by which the traffic of every alias is taken to be larger than observed: a few say nothing yet.
PRIOR_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class HomePod:
    """A pod that can be a home.

    Attributes:
        slots: number of adapters that its engine keeps in memory.
    """

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class PlacedAlias:
    """An alias to be placed.

    Attributes:
        requests: requests that its versions got of late.
        proven_on: names of the pods on which the versions that get requests are active.
    """

    name: str
    requests: int
    proven_on: frozenset[str]


@dataclass(frozen=True, slots=True)
class Placement:
    """Homes of all aliases.

    Attributes:
        homes: names of the pods by alias, sorted; empty if every pod is home of all.
        is_settled: no further move is due.
    """

    homes: Mapping[str, tuple[str, ...]]
    is_settled: bool = True


def place(
    aliases: Sequence[PlacedAlias], pods: Sequence[HomePod], before: Mapping[str, Collection[str]]
) -> Placement:
    """Homes of the aliases on pods that accept requests.

    A home stays while its pod is there, unless the pod holds more than its bound, or another pod with a higher weight
    for the alias holds less than its fair share, and this one more. A home is only given up for a pod that has proven
    the versions. Of moves between pods that stay there are at most ``MOVES``; the result says if more are due.

    Args:
        before: the homes that were published last, by alias.
    """
    if not pods or all(pod.slots >= SLOTS_OF_ALIAS * len(aliases) for pod in pods):
        return Placement({})
    board = _Board(aliases, pods, before)
    board.trim()
    board.fill()
    is_settled = board.move(MOVES)
    return Placement(board.result(), is_settled)


def count_homes(
    aliases: Sequence[PlacedAlias], pods: Sequence[HomePod], before: Mapping[str, Collection[str]]
) -> dict[str, int]:
    """Number of homes by alias: one, or ``HOMES`` where the slots suffice; the other slots by share of the requests.

    A number that is less than one home away from what is due stays as it is.
    """
    room = sum(pod.slots // SLOTS_OF_ALIAS for pod in pods)
    least = min(HOMES, len(pods)) if room >= HOMES * len(aliases) else 1
    spare = max(0, room - least * len(aliases))
    weights = {alias.name: alias.requests + PRIOR_REQUESTS for alias in aliases}
    total = sum(weights.values())
    due = {name: least + spare * weight / total for name, weight in weights.items()}
    kept = {
        name: len(before.get(name, ())) if abs(len(before.get(name, ())) - number) < 1 else int(number)
        for name, number in due.items()
    }
    counts = {name: max(least, number) for name, number in kept.items()}
    if sum(counts.values()) > max(room, least * len(aliases)):
        counts = {name: int(number) for name, number in due.items()}
    return {name: min(number, len(pods)) for name, number in counts.items()}


#: Weight of the new home, alias, old home, new home.
_Move = tuple[int, str, str, str]


@lru_cache(maxsize=65536)
def _score(alias: str, pod: str) -> int:
    return rendezvous_score(alias.encode(), pod.encode())


class _Board:
    """Homes while they are being chosen."""

    def __init__(
        self, aliases: Sequence[PlacedAlias], pods: Sequence[HomePod], before: Mapping[str, Collection[str]]
    ) -> None:
        self._aliases = sorted(aliases, key=lambda alias: alias.name)
        self._pods = sorted(pod.name for pod in pods)
        kept = {alias.name: set(before.get(alias.name, ())) & set(self._pods) for alias in aliases}
        self._homes: dict[str, set[str]] = kept
        self._counts = count_homes(aliases, pods, kept)
        proven = frozenset[str]().union(*(alias.proven_on for alias in aliases), *kept.values())
        # A pod that has proven nothing yet can take nothing: that makes no other pod too full.
        slots = {pod.name: max(pod.slots, 1) if pod.name in proven or not proven else 0 for pod in pods}
        total = sum(self._counts.values())
        #: Fair share of homes by pod; it need not be whole.
        self._fair = {name: total * number / sum(slots.values()) for name, number in slots.items()}
        self._bounds = {name: max(1, math.ceil(LOAD_FACTOR * share)) for name, share in self._fair.items()}
        self._loads = {name: sum(name in homes for homes in kept.values()) for name in self._pods}

    def result(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(sorted(homes)) for name, homes in self._homes.items()}

    def trim(self) -> None:
        """Give up homes beyond the number of an alias: those of the lowest weight, proven ones last.

        If no home has proven the alias, one makes room for a pod that has.
        """
        for alias in self._aliases:
            homes = self._homes[alias.name]
            order = sorted(homes, key=lambda pod: (pod in alias.proven_on, _score(alias.name, pod)))
            spare = len(homes) - self._counts[alias.name]
            if homes and not homes & alias.proven_on and alias.proven_on & self._fair.keys():
                spare = max(spare, 1)
            for pod in order[: max(spare, 0)]:
                self._take(alias.name, pod)

    def fill(self) -> None:
        """Give homes to aliases that lack some, the first ones before any second one."""
        for number in range(1, max(self._counts.values(), default=0) + 1):
            for alias in self._aliases:
                if len(self._homes[alias.name]) < min(number, self._counts[alias.name]):
                    self._add_home(alias)

    def _add_home(self, alias: PlacedAlias) -> None:
        free = [pod for pod in self._pods if pod not in self._homes[alias.name]]
        within = [pod for pod in free if self._loads[pod] < self._bounds[pod]]
        proven = [pod for pod in within if pod in alias.proven_on]
        choice = proven
        if not self._homes[alias.name] & alias.proven_on:
            # Without any home that has proven the alias a full pod is better than one that lacks it.
            choice = proven or [pod for pod in free if pod in alias.proven_on]
            if not choice and not self._homes[alias.name]:
                choice = within or free
        if choice:
            self._give(alias.name, max(choice, key=lambda pod: _score(alias.name, pod)))

    def move(self, limit: int) -> bool:
        """Move homes from pods with too many; False if more moves are due than ``limit``."""
        for _ in range(limit):
            due = next(self._overloads(), None) or max(self._turns(), default=None)
            if due is None:
                return True
            _, alias, old, new = due
            self._take(alias, old)
            self._give(alias, new)
        return next(self._overloads(), None) is None and next(self._turns(), None) is None

    def _overloads(self) -> Iterator[_Move]:
        """Moves off pods above their bound; the first one of a pod is that of its lowest weight."""
        for pod in self._pods:
            if self._loads[pod] <= self._bounds[pod]:
                continue
            held = [alias for alias in self._aliases if pod in self._homes[alias.name]]
            for alias in sorted(held, key=lambda alias: _score(alias.name, pod)):
                targets = [new for new in self._targets(alias) if self._loads[new] < self._bounds[new]]
                if targets:
                    score, new = max((_score(alias.name, new), new) for new in targets)
                    yield score, alias.name, pod, new

    def _turns(self) -> Iterator[_Move]:
        """Moves to pods of higher weight that hold less than their fair share, from pods that hold more."""
        free = {pod for pod in self._pods if self._loads[pod] + 1 <= self._fair[pod]}
        full = {pod for pod in self._pods if self._loads[pod] > self._fair[pod]}
        for alias in self._aliases:
            homes = self._homes[alias.name]
            for new in free & alias.proven_on - homes:
                weight = _score(alias.name, new)
                for old in homes & full:
                    if weight > _score(alias.name, old):
                        yield weight, alias.name, old, new

    def _targets(self, alias: PlacedAlias) -> Iterator[str]:
        homes = self._homes[alias.name]
        return (pod for pod in self._pods if pod in alias.proven_on and pod not in homes)

    def _give(self, alias: str, pod: str) -> None:
        self._homes[alias].add(pod)
        self._loads[pod] += 1

    def _take(self, alias: str, pod: str) -> None:
        self._homes[alias].remove(pod)
        self._loads[pod] -= 1
