"""What the records of aliases said over time, and what answers must agree with."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from rollouts.clients import End, Reply
from rollouts.serving_pods import PodProcesses

from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.manifests.names import ALIAS_LABEL
from tunesmith.manifests.serving_config_maps import RECORD_KEY
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.agent import served_name

LOOK_SECONDS = 0.05
#: From the record to the last pod, and to answers that were under way.
SETTLE_SECONDS = 1.0
#: Standard deviations of a share that is no accident in some hundred shares.
DEVIATIONS = 4.5


@dataclass(frozen=True, slots=True)
class Reading:
    """The record as it was read between two monotonic times."""

    began: float
    ended: float
    record: AliasRecord

    @property
    def weights(self) -> dict[str, int]:
        """Percent of the requests by the version's name."""
        record = self.record
        candidate = record.candidate
        weights = {}
        if record.stable is not None:
            weights[served_name(record.name, record.stable.digest)] = 100 - (
                candidate.weight if candidate else 0
            )
        if candidate is not None:
            weights[served_name(record.name, candidate.version.digest)] = candidate.weight
        return weights


class RecordHistory:
    """Readings of the records by alias, each that differs from the one before.

    Args:
        look_seconds: time between two readings.
    """

    def __init__(self, server: ControlPlane, namespace: str, look_seconds: float = 0.05) -> None:
        self.readings: dict[str, list[Reading]] = {}
        self._server, self._look_seconds = server, look_seconds
        self._path = f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={ALIAS_LABEL}"
        self._parsed: dict[str, tuple[str, AliasRecord]] = {}

    def latest(self, alias: str) -> AliasRecord | None:
        """The record of an alias as it was read last."""
        readings = self.readings.get(alias)
        return readings[-1].record if readings else None

    @property
    def records(self) -> list[AliasRecord]:
        """All records as they were read last."""
        return [readings[-1].record for readings in self.readings.values()]

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.monotonic()
            try:
                items = (await asyncio.to_thread(self._server.api.get, self._path))["items"]
            except (ApiError, ConnectionError):
                items = []
            for item in items:
                self._add(Reading(began, time.monotonic(), self._parse(item)))
            await asyncio.sleep(self._look_seconds)

    def _parse(self, item: dict[str, Any]) -> AliasRecord:
        metadata = item["metadata"]
        version, record = self._parsed.get(metadata["name"], ("", None))
        if record is None or version != metadata["resourceVersion"]:
            record = AliasRecord.model_validate_json(item["data"][RECORD_KEY])
            self._parsed[metadata["name"]] = metadata["resourceVersion"], record
        return record

    def _add(self, reading: Reading) -> None:
        readings = self.readings.setdefault(reading.record.name, [])
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
                latest = after[0].ended if after else float("inf")
                last = readings[-1]
                generation = last.record.generation
                yield Span(weights, before.began, readings[0].ended, last.began, latest, generation)
                at += len(readings)


@dataclass(frozen=True, slots=True)
class Span:
    """Time of one state: it held from ``first`` to ``last``, and may have held from ``earliest`` to ``latest``.

    Attributes:
        weights: percent of the requests by the version's name.
        generation: generation of the desired state by which pods were told.
    """

    weights: dict[str, int]
    earliest: float
    first: float
    last: float
    latest: float
    generation: int = 0


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


def wrong_answers(
    replies: Iterable[Reply],
    history: RecordHistory,
    marks: Mapping[str, str],
    changes: Iterable[ModelChange] = (),
) -> list[Reply]:
    """Answers by a version that had no weight at any moment of the request, nor shortly before.

    So are those whose mark is not that of the version that the agent names.

    Args:
        marks: mark of each version by its name.
        changes: changes of the base model.
    """
    allowed: dict[str, list[Span]] = {}
    for span in itertools.chain(history.spans(), *(change.spans() for change in changes)):
        for version, weight in span.weights.items():
            if weight:
                allowed.setdefault(version, []).append(span)
    return [
        reply
        for reply in replies
        if reply.version
        and (not _is_allowed(reply, allowed.get(reply.version, ())) or _is_mistaken(reply, marks))
    ]


def _is_allowed(reply: Reply, spans: Iterable[Span]) -> bool:
    return any(reply.began <= span.latest + SETTLE_SECONDS and reply.ended >= span.earliest for span in spans)


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


def shares(replies: Sequence[Reply], history: RecordHistory, pods: Iterable[PodProcesses]) -> Iterator[Share]:
    """The share of each step of each rollout, from when all pods that answer have heard of it from the operator."""
    by_name = {pod.name: pod for pod in pods}
    ordered = sorted(replies, key=lambda reply: reply.began)
    for span in history.spans():
        candidate = next(reversed(span.weights), "")
        weight = span.weights.get(candidate, 0)
        if not 0 < weight < 100:
            continue
        asked = {reply.pod for reply in ordered if span.first <= reply.began <= span.last}
        begin = SETTLE_SECONDS + max([span.first, *(_heard_at(by_name[name], span) for name in asked)])
        own = f"{candidate.partition('@')[0]}@"
        seen: dict[int, bool] = {}
        for reply in ordered:
            if begin <= reply.began and reply.ended <= span.last and reply.version.startswith(own):
                seen[reply.conversation] = reply.version == candidate
        if seen:
            yield Share(candidate, weight, len(seen), sum(seen.values()))


def _heard_at(pod: PodProcesses, span: Span) -> float:
    """When the operator has told a pod of a state."""
    told = (
        at
        for at, message, fields in pod.events
        if message == "new desired state"
        and fields["source"] == "operator"
        and fields["generation"] >= span.generation
    )
    return min(told, default=float("inf"))
