"""Circuit breakers of this pod: a candidate that keeps failing gets no more requests.

An open breaker ends the evidence about the candidate, so it waits until that tells more than the fault of one client.
"""

from tunesmith_agent.evidence import ErrorRow
from tunesmith_agent.metrics import VersionStats
from tunesmith_contract.agent import DesiredAlias, DesiredState

#: Errors in a row that open a breaker, if so many clients saw them: fewer don't let the operator reject a version.
ERRORS, CLIENTS = 5, 3
#: Errors in a row that open it in any case, for the sake of clients that are alone.
ERRORS_OF_FEW = 20

#: Digest of a candidate with its weight in percent.
Share = tuple[str, int]


def share_of(alias: DesiredAlias) -> Share:
    """Candidate and weight of an alias; the same as long as a step of its rollout lasts."""
    return (alias.candidate.digest, alias.weight) if alias.candidate else ("", 0)


class Breakers:
    """Open breakers by alias; one closes when the candidate of its alias, or its weight, changes."""

    def __init__(self) -> None:
        #: Share at which it opened, and clients that saw the errors, by alias.
        self._open: dict[str, tuple[Share, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def is_open(self, alias: str) -> bool:
        """True while the candidate of the alias gets no requests here."""
        return alias in self._open

    def clients(self, alias: str) -> int:
        """Effective number of the clients that saw the errors that opened a breaker, rounded down."""
        return self._open[alias][1]

    def record_error(self, stats: VersionStats, desired: DesiredState | None) -> bool:
        """Count one more error; True if it opened a breaker."""
        if stats.alias in self._open or not _is_long(stats.error_row):
            return False
        for alias in desired.aliases if desired else ():
            if alias.name == stats.alias and alias.candidate and alias.candidate.digest == stats.digest:
                self._open[alias.name] = share_of(alias), int(stats.error_row.clients)
                return True
        return False

    def close_changed(self, desired: DesiredState) -> list[str]:
        """Close the breakers of aliases whose candidate or weight changed; returns those aliases."""
        shares = {alias.name: share_of(alias) for alias in desired.aliases}
        closed = [name for name, (share, _) in self._open.items() if shares.get(name) != share]
        for name in closed:
            del self._open[name]
        return closed

    def close_all(self) -> None:
        """Close all breakers: the engine that failed is gone."""
        self._open.clear()


def _is_long(row: ErrorRow) -> bool:
    return row.errors >= ERRORS_OF_FEW or (row.errors >= ERRORS and row.clients >= CLIENTS)
