"""How the pods of a deployment divide the limits of a client: by the home pods of what it may use."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tunesmith_contract.agent import BASE_MODEL_NAME, DesiredState

#: Part of a limit that all pods share equally: any pod may have to answer where no home pod can.
EQUAL_PART = 0.25


@dataclass(frozen=True, slots=True)
class PodShares:
    """Division of limits among pods, of which this is one.

    Attributes:
        pods: number of all pods.
        own_name: name of this pod.
        homes: names of the home pods of each alias.
        served: names that clients may ask for.
    """

    pods: int
    own_name: str = ""
    homes: dict[str, frozenset[str]] = field(default_factory=dict)
    served: frozenset[str] = frozenset()

    def weight(self, adapters: Iterable[str] | None) -> float:
        """This pod's share of a limit, in equal shares; over all pods they add up to the number of pods.

        Args:
            adapters: names that the client may use; None: all.
        """
        names = self.served if adapters is None else self.served.intersection(adapters)
        # What is at home nowhere is answered by every pod.
        if not names or not names <= self.homes.keys():
            return 1.0
        homes: frozenset[str] = frozenset().union(*(self.homes[name] for name in names))
        if len(homes) >= self.pods:
            return 1.0
        more = (1 - EQUAL_PART) * self.pods / len(homes) if self.own_name in homes else 0.0
        return EQUAL_PART + more


def divide(state: DesiredState, own_name: str, unknown_pods: int) -> PodShares:
    """Division of limits among the pods of a state.

    Args:
        unknown_pods: number of pods where the state tells none.
    """
    if state.pods is None:
        return PodShares(unknown_pods)
    homes: dict[str, frozenset[str]] = {}
    for peer in state.peers:
        for alias in peer.homes:
            homes[alias] = homes.get(alias, frozenset()) | {peer.name}
    served = frozenset(alias.name for alias in state.aliases) | {BASE_MODEL_NAME}
    return PodShares(state.pods, own_name, homes, served)
