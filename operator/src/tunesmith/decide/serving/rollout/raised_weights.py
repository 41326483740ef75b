"""Raised weights: they are sent once the agents of all ready pods are connected, so that all pods get them together.

The requests of one conversation may reach several pods. While only some of them answer by a raised weight, the
conversation changes its version back and forth. So after an operator has ended, or while an agent is cut off, a version
gets more requests only when all ready pods can be told, or after a deadline. Nothing that takes requests from a version
waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.decide.serving.records.stored import StoredServing
from tunesmith_contract.agent import DesiredAlias, Version

#: Longest time that a raised weight waits for agents: since it was decided, and since this operator leads.
LONGEST_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for agents to connect.

    Attributes:
        withheld: names of the aliases that keep the state that was published last.
        is_unheard: that state itself raises a weight, and no pod is known to have applied it: the operator may have
            ended between publishing and sending it.
        seconds: time until it is sent to the agents that are connected then; None if nothing waits.
    """

    withheld: frozenset[str] = frozenset()
    is_unheard: bool = False
    seconds: float | None = None


def find_waiting(
    stored: StoredServing, records: Iterable[AliasRecord], fleet: Fleet, leading_seconds: float
) -> Waiting:
    """What waits for the agents of ready pods that are not connected.

    Args:
        records: the records of the aliases after this pass.
        leading_seconds: time for which agents could connect to this operator.
    """
    if fleet.is_connected:
        return Waiting()
    published = {alias.name: alias for alias in stored.published.aliases}
    withheld: set[str] = set()
    is_unheard = False
    waits: list[float] = []
    for record in records:
        before, after = published.get(record.name), record.to_desired()
        if before is None:
            continue
        seconds = LONGEST_WAIT_SECONDS - min(leading_seconds, _decided_seconds(record, before))
        if seconds <= 0:
            continue
        if raises(before, after):
            withheld.add(record.name)
        elif before == after and fleet.generation < record.generation and _may_have_raised(after):
            is_unheard = True
        else:
            continue
        waits.append(seconds)
    return Waiting(frozenset(withheld), is_unheard, max(waits, default=None))


def raises(before: DesiredAlias, after: DesiredAlias) -> bool:
    """True if a candidate gets a higher share of the requests, or is promoted.

    The way back to the previous version is none.
    """
    if before.stable is None or after.stable is None:
        return False
    if after.stable.digest != before.stable.digest:
        is_promoted = before.candidate is not None and after.stable.digest == before.candidate.digest
        return is_promoted and before.stable.digest not in after.rejected
    if after.candidate is None:
        return False
    stays = before.candidate is not None and after.candidate.digest == before.candidate.digest
    return after.weight > (before.weight if stays else 0)


def _may_have_raised(alias: DesiredAlias) -> bool:
    """True if the last change of this state may have been a step or a promotion."""
    return alias.weight > 0 or alias.previous is not None


def _decided_seconds(record: AliasRecord, before: DesiredAlias) -> float:
    """Elapsed time since the step or, if the stable version is another one, since the promotion."""
    if record.candidate is None or _digest(record.stable) != _digest(before.stable):
        return record.watch.seconds
    return record.candidate.step_seconds


def _digest(version: Version | None) -> str:
    return version.digest if version else ""
