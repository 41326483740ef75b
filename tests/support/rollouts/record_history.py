"""What the operator published about aliases over time, and what answers must agree with."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from rollouts.clients import FAILS, HANGS, End, Reply
from rollouts.serving_pods import PodProcesses

from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.manifests.names import ALIAS_LABEL, OWNER_UID_LABEL
from tunesmith.manifests.serving_config_maps import RECORD_KEY
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.agent import STATE_FILE, DesiredAlias, DesiredState, served_name

#: From the published state to the last pod, and to answers that were under way.
SETTLE_SECONDS = 1.0
#: Standard deviations of a share that is no accident in some hundred shares.
DEVIATIONS = 4.5


@dataclass(frozen=True, slots=True)
class Reading:
    """Published state of an alias, as it was read between two monotonic times.

    Attributes:
        weights: percent of the requests by the version's name; a candidate comes last.
        generation: generation of the state.
    """

    began: float
    ended: float
    weights: Mapping[str, int]
    generation: int


class StateHistory:
    """Published states by alias, each that differs from the one before.

    Attributes:
        taken_back: monotonic time from which on a version is rejected, by its name in answers.
    """

    def __init__(self) -> None:
        self.readings: dict[str, list[Reading]] = {}
        self.taken_back: dict[str, float] = {}

    def note(self, state: DesiredState, began: float, ended: float) -> None:
        """Take over a state that was published at two monotonic times, or between them."""
        for alias in state.aliases:
            self._add(alias.name, Reading(began, ended, _weights(alias), state.generation))

    def _add(self, alias: str, reading: Reading) -> None:
        readings = self.readings.setdefault(alias, [])
        if len(readings) > 1 and readings[-1].weights == reading.weights == readings[-2].weights:
            # Only when a state was seen first and last matters.
            readings.pop()
        readings.append(reading)

    def spans(self) -> Iterator["Span"]:
        """The states of each alias, one after the other."""
        for of_alias in self.readings.values():
            at = 0
            for weights, group in itertools.groupby(of_alias, key=lambda reading: reading.weights):
                readings = list(group)
                before, after = of_alias[max(at - 1, 0)], of_alias[at + len(readings) :][:1]
                yield Span(
                    weights,
                    before.began,
                    readings[0].ended,
                    readings[-1].began,
                    after[0].ended if after else float("inf"),
                    readings[0].generation,
                    after[0].generation if after else None,
                )
                at += len(readings)


class RecordHistory(StateHistory):
    """States and records that the API server has.

    Args:
        look_seconds: time between two readings.

    Attributes:
        records: the latest record of each alias.
    """

    def __init__(self, server: ControlPlane, namespace: str, look_seconds: float = 0.05) -> None:
        super().__init__()
        self.records: dict[str, AliasRecord] = {}
        self._server, self._look_seconds = server, look_seconds
        self._path = f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={OWNER_UID_LABEL}"
        self._known: dict[str, str] = {}
        self._state = DesiredState(generation=0)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.monotonic()
            try:
                items = (await asyncio.to_thread(self._server.api.get, self._path))["items"]
            except (ApiError, ConnectionError):
                items = []
            for item in items:
                self._take(item)
            if items:
                self.note(self._state, began, time.monotonic())
            await asyncio.sleep(self._look_seconds)

    def _take(self, item: dict[str, Any]) -> None:
        """Take over a ConfigMap that has changed."""
        metadata, data = item["metadata"], item.get("data") or {}
        if self._known.get(metadata["name"]) == metadata["resourceVersion"]:
            return
        self._known[metadata["name"]] = metadata["resourceVersion"]
        if STATE_FILE in data:
            self._state = DesiredState.model_validate_json(data[STATE_FILE])
        elif RECORD_KEY in data and ALIAS_LABEL in metadata["labels"]:
            record = AliasRecord.read(data[RECORD_KEY])
            self.records[record.name] = record
            for rejection in record.rejections:
                name = served_name(record.name, rejection.version.digest)
                self.taken_back.setdefault(name, time.monotonic())


def _weights(alias: DesiredAlias) -> dict[str, int]:
    weights = {}
    if alias.stable is not None:
        weights[served_name(alias.name, alias.stable.digest)] = 100 - alias.weight
    if alias.candidate is not None:
        weights[served_name(alias.name, alias.candidate.digest)] = alias.weight
    return weights


@dataclass(frozen=True, slots=True)
class Span:
    """Time of one state: it held from ``first`` to ``last``, and may have held from ``earliest`` to ``latest``.

    Attributes:
        weights: percent of the requests by the version's name.
        generation: generation by which pods were told of it.
        following: generation by which pods were told of the next state; None if there is none.
    """

    weights: Mapping[str, int]
    earliest: float
    first: float
    last: float
    latest: float
    generation: int = 0
    following: int | None = None


@dataclass(frozen=True, slots=True)
class ModelChange:
    """Switch of the Service to pods on another base model.

    Former pods answer with the former versions on connections that were open, until they are gone.

    Attributes:
        versions: name of the former version of each alias, and of the version that took over.
        marks: the same for their marks.
        switched: monotonic time after which the Service selected the other pods.
        gone: monotonic time at which the last former pod was gone.
        taken_over: monotonic time at which all records had the versions.
    """

    versions: Mapping[str, str]
    marks: Mapping[str, str]
    switched: float
    gone: float
    taken_over: float

    def spans(self) -> Iterator[Span]:
        """Times in which versions answer that the records do not give weight."""
        for former, other in self.versions.items():
            yield Span({former: 100}, self.switched, self.switched, self.gone, self.gone)
            yield Span({other: 100}, self.switched, self.switched, self.taken_over, self.taken_over)

    def excuses(self, at: float, old: str, new: str) -> bool:
        """True for a change of mark while both sets of pods answered."""
        is_of_change = self.marks.get(old) == new or self.marks.get(new) == old
        return is_of_change and self.switched <= at <= self.gone


class Hearing:
    """When the operator told pods of a generation of the state."""

    def __init__(self, pods: Iterable[PodProcesses]) -> None:
        self._pods = {pod.name: pod for pod in pods}
        self._times: dict[tuple[str, int], float] = {}

    def time(self, pod: str, generation: int) -> float:
        """Monotonic time, which is infinite for a pod that was never told."""
        if (pod, generation) not in self._times:
            told = (
                at
                for at, message, fields in self._pods[pod].events
                if message == "new desired state"
                and fields["source"] == "operator"
                and fields["generation"] >= generation
            )
            self._times[pod, generation] = min(told, default=float("inf"))
        return self._times[pod, generation]


def wrong_answers(
    replies: Iterable[Reply],
    history: StateHistory,
    pods: Iterable[PodProcesses],
    marks: Mapping[str, str],
    changes: Iterable[ModelChange] = (),
) -> list[Reply]:
    """Answers by a version that had no weight at any moment of the request, nor shortly before.

    A version that lost its weight to a better one may answer on a pod until the operator has told the pod of it. One
    that was taken back may not.
    Answers whose mark is not that of the version that the agent names are wrong, too.

    Args:
        marks: mark of each version by its name.
        changes: changes of the base model.
    """
    hearing = Hearing(pods)
    allowed: dict[str, list[Span]] = {}
    for span in itertools.chain(history.spans(), *(change.spans() for change in changes)):
        for version, weight in span.weights.items():
            if weight:
                allowed.setdefault(version, []).append(span)

    def is_allowed(reply: Reply) -> bool:
        if reply.began > history.taken_back.get(reply.version, float("inf")) + SETTLE_SECONDS:
            return False
        return any(
            reply.ended >= span.earliest and reply.began <= _end(reply, span, hearing) + SETTLE_SECONDS
            for span in allowed.get(reply.version, ())
        )

    return [
        reply for reply in replies if reply.version and (not is_allowed(reply) or _is_mistaken(reply, marks))
    ]


def _end(reply: Reply, span: Span, hearing: Hearing) -> float:
    """End of a state on the pod that answered."""
    if span.following is None or reply.began <= span.latest + SETTLE_SECONDS:
        return span.latest
    return max(span.latest, hearing.time(reply.pod, span.following))


def _is_mistaken(reply: Reply, marks: Mapping[str, str]) -> bool:
    """True for an answer that is not of the version that the agent names."""
    return reply.end is End.ANSWERED and reply.mark != marks.get(reply.version)


def flips(replies: Iterable[Reply], changes: Collection[ModelChange] = ()) -> Iterator[tuple[int, str, str]]:
    """Each change of a conversation from one version to another: conversation, old and new mark.

    Args:
        changes: changes of the base model, whose own are left out while both sets of pods answered.
    """
    before: dict[int, str] = {}
    for reply in sorted(replies, key=lambda reply: reply.began):
        if reply.end is not End.ANSWERED:
            continue
        old = before.get(reply.conversation, reply.mark)
        if old != reply.mark and not any(each.excuses(reply.began, old, reply.mark) for each in changes):
            yield reply.conversation, old, reply.mark
        before[reply.conversation] = reply.mark


def needless_flips(
    replies: Sequence[Reply], rejected: Collection[str], changes: Collection[ModelChange] = ()
) -> dict[tuple[int, str, str], int]:
    """Flips beyond one forward in each rollout and one back where it was rolled back.

    Args:
        rejected: marks of the versions that were rolled back.
        changes: changes of the base model.
    """
    counted = Counter(flips(replies, changes))
    left = {(conversation, new, old) for conversation, old, new in counted}
    return {
        flip: times
        for flip, times in counted.items()
        if times > 1 or (flip in left and not {flip[1], flip[2]} & set(rejected))
    }


@dataclass(frozen=True, slots=True)
class Share:
    """Conversations of one step, and those of them that the candidate answered."""

    version: str
    weight: int
    conversations: int
    candidates: int

    @property
    def deviations(self) -> float:
        """Distance from the weight in standard deviations of independent conversations."""
        expected = self.weight / 100
        deviation = sqrt(self.conversations * expected * (1 - expected))
        return (self.candidates - expected * self.conversations) / deviation


def shares(
    replies: Sequence[Reply], history: StateHistory, pods: Iterable[PodProcesses], marks: Mapping[str, str]
) -> Iterator[Share]:
    """The share of each step of each rollout, from when all pods that answer have heard of it from the operator.

    Args:
        marks: mark of each version by its name; versions whose requests fail have no share.
    """
    hearing = Hearing(pods)
    ordered = sorted(replies, key=lambda reply: reply.began)
    for span in history.spans():
        candidate = next(reversed(list(span.weights)), "")
        weight = span.weights.get(candidate, 0)
        if not 0 < weight < 100 or marks[candidate].startswith((FAILS, HANGS)):
            continue
        asked = {reply.pod for reply in ordered if span.first <= reply.began <= span.last}
        begin = SETTLE_SECONDS + max([span.first, *(hearing.time(name, span.generation) for name in asked)])
        own = f"{candidate.partition('@')[0]}@"
        seen: dict[int, bool] = {}
        for reply in ordered:
            if begin <= reply.began and reply.ended <= span.last and reply.version.startswith(own):
                seen[reply.conversation] = reply.version == candidate
        if seen:
            yield Share(candidate, weight, len(seen), sum(seen.values()))
