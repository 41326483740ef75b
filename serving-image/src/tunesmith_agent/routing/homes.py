"""Pods that answer the requests of an alias, and the order in which a request is tried on them."""

from collections.abc import Iterable

from tunesmith_contract.agent import rendezvous_score


class Homes:
    """Pods that answer the requests of an alias, by name.

    Args:
        pods: names of the pods, of which this one may be one.

    Attributes:
        only_lacking: only requests for versions that this pod has not proven go to the others.
    """

    __slots__ = ("_pods", "only_lacking")

    def __init__(self, pods: Iterable[str], *, only_lacking: bool = False) -> None:
        self.only_lacking = only_lacking
        self._pods = tuple((pod.encode(), pod) for pod in sorted(pods))

    def __len__(self) -> int:
        return len(self._pods)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(name for _, name in self._pods)

    def order(self, key: bytes) -> list[str]:
        """All pods, that of the sticky key first: the requests of a conversation go to one pod, whose cache has it."""
        if len(self._pods) == 1:
            return [self._pods[0][1]]
        scored = sorted(((rendezvous_score(key, pod), name) for pod, name in self._pods), reverse=True)
        return [name for _, name in scored]
