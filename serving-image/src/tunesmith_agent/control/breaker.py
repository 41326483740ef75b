"""The local error breaker: a candidate that only fails gets no more requests on this pod."""

from tunesmith_agent.metrics import VersionStats
from tunesmith_contract.agent import DesiredAlias, DesiredState

CONSECUTIVE_ERRORS = 5


class Breakers:
    """Open breakers by alias; one closes when the operator wants something else of its alias."""

    def __init__(self) -> None:
        self._open: dict[str, DesiredAlias] = {}

    def __len__(self) -> int:
        return len(self._open)

    def is_open(self, alias: str) -> bool:
        """Whether the alias's candidate gets no requests here."""
        return alias in self._open

    def record_error(self, stats: VersionStats, desired: DesiredState | None) -> bool:
        """Called after each error; True if a breaker opened by it."""
        if stats.consecutive_errors < CONSECUTIVE_ERRORS or stats.alias in self._open:
            return False
        for alias in desired.aliases if desired else ():
            if alias.name == stats.alias and alias.candidate and alias.candidate.digest == stats.digest:
                self._open[alias.name] = alias
                return True
        return False

    def keep_only(self, desired: DesiredState) -> list[str]:
        """Close breakers whose alias is wanted otherwise now; returns those aliases."""
        wanted = {alias.name: alias for alias in desired.aliases}
        closed = [name for name, alias in self._open.items() if wanted.get(name) != alias]
        for name in closed:
            del self._open[name]
        return closed
