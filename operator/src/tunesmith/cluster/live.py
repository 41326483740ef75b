"""What pods tell the operator: kept in memory alone, gone after a restart, and sent again by the pods.

Whoever gets news here wakes the resource that it is about, at most once per ``interval``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith_contract.agent import AgentReport, DesiredState
from tunesmith_contract.progress import TrainerStatus

Wake = Callable[[str, float], None]
"""Reconcile the resource of this UID, at most once per so many seconds."""

PROGRESS_SECONDS = 5.0
AGENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The latest progress that a pod of a resource sent.

    Attributes:
        pod_name, pod_uid: who sent it.
        labels: the pod's labels: stage and attempt.
        received: when, by the operator's clock, in UTC.
        status: what it said.
    """

    pod_name: str
    pod_uid: str
    labels: dict[str, str]
    received: datetime
    status: TrainerStatus


@dataclass(frozen=True, slots=True)
class AgentState:
    """The latest report of one serving pod, and whether its connection still stands.

    The report's ``pod_name`` and ``pod_uid`` were checked against the pod's token.
    """

    report: AgentReport
    received: datetime
    connected: bool


class ProgressBoard:
    """The latest progress per resource."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._latest: dict[str, Progress] = {}

    def latest(self, owner_uid: str) -> Progress | None:
        """The latest progress of this resource since the operator started."""
        return self._latest.get(owner_uid)

    def put(self, owner_uid: str, progress: Progress) -> None:
        """Keep the news and wake the resource."""
        self._latest[owner_uid] = progress
        self._wake(owner_uid, PROGRESS_SECONDS)

    def forget(self, owner_uid: str) -> None:
        """The resource is gone."""
        self._latest.pop(owner_uid, None)


Send = Callable[[DesiredState], Awaitable[None]]


@dataclass(slots=True)
class _Fleet:
    """The agents of one AdapterDeployment, by pod UID."""

    states: dict[str, AgentState] = field(default_factory=dict)
    connections: dict[str, Send] = field(default_factory=dict)
    desired: DesiredState | None = None


class AgentHub:
    """The serving agents: their latest reports, and the way to tell them what to serve."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._fleets: dict[str, _Fleet] = {}

    def states(self, owner_uid: str) -> tuple[AgentState, ...]:
        """The latest state of each pod of this AdapterDeployment that reported since the operator started.

        A pod that is gone stays, not connected, until ``keep`` or ``forget``: match by ``pod_uid`` against the pods.
        """
        fleet = self._fleets.get(owner_uid)
        return tuple(fleet.states.values()) if fleet else ()

    async def push(self, owner_uid: str, desired: DesiredState) -> None:
        """Send to every connected agent, and from now on to each that connects; an older generation is left out."""
        raise NotImplementedError

    def keep(self, owner_uid: str, pod_uids: frozenset[str]) -> None:
        """Drop what was heard from pods other than these."""
        raise NotImplementedError

    def forget(self, owner_uid: str) -> None:
        """The resource is gone."""
        self._fleets.pop(owner_uid, None)


@dataclass(frozen=True, slots=True)
class Live:
    """What is known beside the API server."""

    progress: ProgressBoard
    agents: AgentHub
