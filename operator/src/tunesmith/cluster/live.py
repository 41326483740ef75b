"""In-memory exchange with pods: their latest reports, and desired states to send to agents.

Each report wakes its resource, at most once per so many seconds.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith_contract.agent import (
    PEERS,
    AgentReport,
    DesiredState,
    SentState,
    UsageOfOthers,
    derive_peer_key,
)
from tunesmith_contract.progress import EVAL_REWARD, TRAINER_UPDATES, TRIAL_PREFIX, TrainerStatus

Wake = Callable[[str, float], None]
"""Function that reconciles the resource of a UID, at most once per so many seconds."""

#: Between two passes for progress by a percent or by an event of training, such as a checkpoint.
PROGRESS_SECONDS = 5.0
#: For progress of less than a percent: each status that is written costs the API server several milliseconds.
QUIET_PROGRESS_SECONDS = 30.0
TOLD_ONCE = TRAINER_UPDATES | {"eval_loss", EVAL_REWARD}
AGENT_SECONDS = 10.0
CHANGE_SECONDS = 0.5
#: How long the last report of an agent that has ended is kept, for the requests that it counted.
ENDED_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The latest progress that a pod of a resource sent.

    Attributes:
        pod_name, pod_uid: the sender.
        labels: the pod's labels: stage and attempt.
        received: time of arrival by the operator's clock, in UTC.
        status: the content.
    """

    pod_name: str
    pod_uid: str
    labels: dict[str, str]
    received: datetime
    status: TrainerStatus


@dataclass(frozen=True, slots=True)
class AgentState:
    """The latest report of one serving pod, and the state of its connection.

    The report's ``pod_name`` and ``pod_uid`` were checked against the pod's token.

    Attributes:
        ended: another run of the agent has followed, or the pod is gone.
        told: a desired state was sent on its connection.
    """

    report: AgentReport
    received: datetime
    connected: bool
    ended: bool = False
    told: bool = False


class ProgressBoard:
    """The latest progress per resource."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._latest: dict[str, Progress] = {}

    def latest(self, owner_uid: str) -> Progress | None:
        """The latest progress of this resource since the operator started."""
        return self._latest.get(owner_uid)

    def put(self, owner_uid: str, progress: Progress) -> None:
        """Keep the progress and wake the resource, soon if people see more than another loss."""
        before = self._latest.get(owner_uid)
        self._latest[owner_uid] = progress
        is_news = before is None or _is_news(before, progress)
        self._wake(owner_uid, PROGRESS_SECONDS if is_news else QUIET_PROGRESS_SECONDS)

    def forget(self, owner_uid: str) -> None:
        """Drop the progress of a deleted resource."""
        self._latest.pop(owner_uid, None)


def _is_news(before: Progress, now: Progress) -> bool:
    """True for another percent, another attempt, or an event in the pod."""
    if (before.labels, before.status.progress_percentage) != (now.labels, now.status.progress_percentage):
        return True
    events = _events(now.status)
    return bool(events) and events != _events(before.status)


def _events(status: TrainerStatus) -> frozenset[tuple[str, str]]:
    """What a pod tells once: checkpoints, parts, trials, and measurements on the validation rows."""
    return frozenset(
        (metric.name, metric.value)
        for metric in status.metrics
        if metric.name in TOLD_ONCE or metric.name.startswith(TRIAL_PREFIX)
    )


class Connection:
    """Outbox of one connected agent: the latest desired state and usage of others, without a backlog.

    Args:
        peer_key: secret that the agents of the AdapterDeployment share; empty: none is sent.
    """

    def __init__(self, peer_key: str = "") -> None:
        self._peer_key = peer_key
        self._desired: DesiredState | None = None
        self._features: tuple[str, ...] | None = None
        self._usage: UsageOfOthers | None = None
        self._sent = -1
        self._is_sending = False
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def told(self) -> bool:
        """True once a state was sent."""
        return self._sent >= 0

    @property
    def _has_news(self) -> bool:
        """True if a state is to be sent to an agent that is known to understand it."""
        desired = self._desired
        return desired is not None and self._features is not None and desired.generation > self._sent

    async def flush(self) -> None:
        """Return once every state that was offered is on its way; one for an agent that has not reported waits on."""
        while self._has_news or self._is_sending:
            self._settled.clear()
            await self._settled.wait()

    def close(self) -> None:
        """Nobody sends what is left."""
        self._desired, self._is_sending = None, False
        self._settled.set()

    def offer(self, desired: DesiredState) -> None:
        """Send this next, in place of a state that was not sent yet."""
        self._desired = desired
        self._changed.set()

    def learn(self, features: tuple[str, ...]) -> None:
        """Take over which later fields of the state the agent understands; nothing is sent before that is known."""
        self._features = features
        self._changed.set()

    def tell(self, usage: UsageOfOthers) -> None:
        """Send this once, in place of one that was not sent yet."""
        self._usage = usage
        self._changed.set()

    async def next(self) -> DesiredState | UsageOfOthers:
        """The next message to send: a state, in the agent's form, once its generation is higher than the last one's.

        The one before counts as sent.
        """
        self._is_sending = False
        self._settled.set()
        while True:
            desired, features = self._desired, self._features
            if desired is not None and features is not None and self._has_news:
                self._sent, self._is_sending = desired.generation, True
                understood = desired.for_features(features)
                if self._peer_key and PEERS in features:
                    return SentState(**dict(understood), peer_key=self._peer_key)
                return understood
            if self._usage is not None:
                usage, self._usage = self._usage, None
                return usage
            self._changed.clear()
            await self._changed.wait()


@dataclass(slots=True)
class _Fleet:
    """The agents of one AdapterDeployment: reports and connections by pod UID, and reports of agents that have ended.

    ``ended`` holds each with the monotonic time of its end.
    """

    reports: dict[str, tuple[AgentReport, datetime]] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)
    ended: list[tuple[float, AgentReport, datetime]] = field(default_factory=list)
    desired: DesiredState | None = None


class AgentHub:
    """Latest reports of the serving agents, and their outboxes.

    Args:
        clock: monotonic seconds.

    Attributes:
        peer_secret: secret of the installation from which the keys of agents are derived; empty: they get none.
    """

    def __init__(self, wake: Wake, clock: Callable[[], float] = time.monotonic) -> None:
        self.peer_secret = ""
        self._wake = wake
        self._clock = clock
        self._began = clock()
        self._fleets: dict[str, _Fleet] = {}

    @property
    def seconds(self) -> float:
        """Time for which agents could connect."""
        return self._clock() - self._began

    def states(self, owner_uid: str) -> tuple[AgentState, ...]:
        """The latest state of each pod of this AdapterDeployment that reported since the operator started.

        Those of agents that have ended a short while ago come first.
        """
        fleet = self._fleets.get(owner_uid, _Fleet())
        ended = (AgentState(report, received, False, True) for _, report, received in fleet.ended)
        current = (
            AgentState(
                report, received, connection is not None, told=connection is not None and connection.told
            )
            for pod_uid, (report, received) in fleet.reports.items()
            for connection in [fleet.connections.get(pod_uid)]
        )
        return (*ended, *current)

    def push(self, owner_uid: str, desired: DesiredState) -> None:
        """Send to every connected agent, and to each that connects later; an older generation is ignored."""
        fleet = self._fleets.setdefault(owner_uid, _Fleet())
        if fleet.desired is not None and desired.generation < fleet.desired.generation:
            return
        fleet.desired = desired
        for connection in fleet.connections.values():
            connection.offer(desired)

    def tell(self, owner_uid: str, usage: Mapping[str, UsageOfOthers]) -> None:
        """Send to the connected agents of these pods; for one that is not connected it is lost."""
        connections = self._fleets.get(owner_uid, _Fleet()).connections
        for pod_uid, counted in usage.items():
            if connection := connections.get(pod_uid):
                connection.tell(counted)

    async def flush(self) -> None:
        """Return once every connected agent was sent the latest state."""
        fleets = [*self._fleets.values()]
        await asyncio.gather(
            *(connection.flush() for fleet in fleets for connection in fleet.connections.values())
        )

    def connect(self, owner_uid: str, pod_uid: str) -> Connection:
        """Outbox of an agent that has connected; it replaces a former connection of the same pod."""
        fleet = self._fleets.setdefault(owner_uid, _Fleet())
        key = derive_peer_key(self.peer_secret.encode(), owner_uid) if self.peer_secret else ""
        connection = fleet.connections[pod_uid] = Connection(key)
        if fleet.desired is not None:
            connection.offer(fleet.desired)
        self._wake(owner_uid, 0.0)
        return connection

    def disconnect(self, owner_uid: str, pod_uid: str, connection: Connection) -> None:
        """Remove the connection, unless a newer one has replaced it."""
        connection.close()
        fleet = self._fleets.get(owner_uid)
        if fleet is not None and fleet.connections.get(pod_uid) is connection:
            del fleet.connections[pod_uid]
            self._wake(owner_uid, 0.0)

    def report(self, owner_uid: str, report: AgentReport, received: datetime) -> None:
        """Keep the report and wake the resource: at once when more than counters changed."""
        fleet = self._fleets.setdefault(owner_uid, _Fleet())
        before = fleet.reports.get(report.pod_uid)
        if before is not None and before[0].boot_id != report.boot_id:
            fleet.ended.append((self._clock(), *before))
        fleet.reports[report.pod_uid] = (report, received)
        if connection := fleet.connections.get(report.pod_uid):
            connection.learn(report.features)
        only_counters = before is not None and _without_counters(before[0]) == _without_counters(report)
        self._wake(owner_uid, AGENT_SECONDS if only_counters else CHANGE_SECONDS)

    def keep_only(self, owner_uid: str, pod_uids: frozenset[str]) -> None:
        """Count the agents of all pods but these as ended, and drop those that ended long ago."""
        fleet = self._fleets.get(owner_uid)
        if fleet is None:
            return
        now = self._clock()
        for uid in [uid for uid in fleet.reports if uid not in pod_uids]:
            fleet.ended.append((now, *fleet.reports.pop(uid)))
        fleet.ended = [entry for entry in fleet.ended if now - entry[0] < ENDED_SECONDS]

    def forget(self, owner_uid: str) -> None:
        """Drop reports and connections of a deleted resource."""
        self._fleets.pop(owner_uid, None)


def _without_counters(report: AgentReport) -> AgentReport:
    access = report.access.model_copy(update={"usage": ()}) if report.access else None
    return report.model_copy(update={"counters": (), "access": access})


@dataclass(frozen=True, slots=True)
class Live:
    """All that pods have reported."""

    progress: ProgressBoard
    agents: AgentHub
