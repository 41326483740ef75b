"""Circuit breakers of this pod: a candidate that keeps failing gets no more requests."""

from tunesmith_agent.metrics import VersionStats
from tunesmith_contract.agent import DesiredAlias, DesiredState

CONSECUTIVE_ERRORS = 5


class Breakers:
    """Open breakers by alias; one closes when the desired state of its alias changes."""

    def __init__(self) -> None:
        self._open: dict[str, DesiredAlias] = {}

    def __len__(self) -> int:
        return len(self._open)

    def is_open(self, alias: str) -> bool:
        """True while the candidate of the alias gets no requests here."""
        return alias in self._open

    def record_error(self, stats: VersionStats, desired: DesiredState | None) -> bool:
        """Count one more error; True if it opened a breaker."""
        if stats.consecutive_errors < CONSECUTIVE_ERRORS or stats.alias in self._open:
            return False
        for alias in desired.aliases if desired else ():
            if alias.name == stats.alias and alias.candidate and alias.candidate.digest == stats.digest:
                self._open[alias.name] = alias
                return True
        return False

    def close_changed(self, desired: DesiredState) -> list[str]:
        """Close the breakers of aliases whose desired state changed; returns those aliases."""
        desired_by_name = {alias.name: alias for alias in desired.aliases}
        closed = [name for name, alias in self._open.items() if desired_by_name.get(name) != alias]
        for name in closed:
            del self._open[name]
        return closed
