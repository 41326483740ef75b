"""What the record of an alias said over time, and what answers must agree with."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

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
    """Readings of the record, each that differs from the one before."""

    def __init__(self, server: ControlPlane, namespace: str) -> None:
        self.readings: list[Reading] = []
        self._server = server
        self._path = f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={ALIAS_LABEL}"

    @property
    def latest(self) -> AliasRecord | None:
        """The record as it was read last."""
        return self.readings[-1].record if self.readings else None

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.monotonic()
            try:
                items = (await asyncio.to_thread(self._server.api.get, self._path))["items"]
            except (ApiError, ConnectionError):
                items = []
            if items:
                record = AliasRecord.model_validate_json(items[0]["data"][RECORD_KEY])
                self._add(Reading(began, time.monotonic(), record))
            await asyncio.sleep(LOOK_SECONDS)

    def _add(self, reading: Reading) -> None:
        if (
            len(self.readings) > 1
            and self.readings[-1].weights == reading.weights == self.readings[-2].weights
        ):
            # Only when a state was seen first and last matters.
            self.readings.pop()
        self.readings.append(reading)

    def spans(self) -> Iterator["Span"]:
        """The states one after the other."""
        at = 0
        for weights, group in itertools.groupby(self.readings, key=lambda reading: reading.weights):
            readings = list(group)
            before, after = self.readings[max(at - 1, 0)], self.readings[at + len(readings) :][:1]
            latest = after[0].ended if after else float("inf")
            yield Span(weights, before.began, readings[0].ended, readings[-1].began, latest)
            at += len(readings)


@dataclass(frozen=True, slots=True)
class Span:
    """Time of one state: it held from ``first`` to ``last``, and may have held from ``earliest`` to ``latest``."""

    weights: dict[str, int]
    earliest: float
    first: float
    last: float
    latest: float


def wrong_answers(replies: Iterable[Reply], history: RecordHistory) -> list[Reply]:
    """Answers by a version that had no weight at any moment of the request, nor shortly before."""
    allowed: dict[str, list[Span]] = {}
    for span in history.spans():
        for version, weight in span.weights.items():
            if weight:
                allowed.setdefault(version, []).append(span)
    return [
        reply
        for reply in replies
        if reply.version
        and not any(
            reply.began <= span.latest + SETTLE_SECONDS and reply.ended >= span.earliest
            for span in allowed.get(reply.version, ())
        )
    ]


def flips(replies: Iterable[Reply]) -> Iterator[tuple[int, str, str]]:
    """Each change of a conversation from one version to another: conversation, old and new mark."""
    before: dict[int, str] = {}
    for reply in sorted(replies, key=lambda reply: reply.began):
        if reply.end is not End.ANSWERED:
            continue
        old = before.get(reply.conversation, reply.mark)
        if old != reply.mark:
            yield reply.conversation, old, reply.mark
        before[reply.conversation] = reply.mark


def needless_flips(replies: Sequence[Reply], rejected: Collection[str]) -> dict[tuple[int, str, str], int]:
    """Flips beyond one forward in each rollout and one back where it was rolled back.

    Args:
        rejected: marks of the versions that were rolled back.
    """
    counted = Counter(flips(replies))
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
    """The share of each step of each rollout, from when all pods have heard of it from the operator."""
    pods = tuple(pods)
    ordered = sorted(replies, key=lambda reply: reply.began)
    for span in history.spans():
        candidate = next(reversed(span.weights), "")
        weight = span.weights.get(candidate, 0)
        if not 0 < weight < 100:
            continue
        begin = SETTLE_SECONDS + max(span.first, *(_heard_at(pod, span) for pod in pods))
        seen: dict[int, bool] = {}
        for reply in ordered:
            if begin <= reply.began and reply.ended <= span.last and reply.version:
                seen[reply.conversation] = reply.version == candidate
        if seen:
            yield Share(candidate, weight, len(seen), sum(seen.values()))


def _heard_at(pod: PodProcesses, span: Span) -> float:
    """When the operator has told a pod of a state; at once for a pod that was not there."""
    is_there = pod.ended_at > span.first and pod.events and pod.events[0][0] < span.last
    told = (
        at
        for at, message, fields in pod.events
        if message == "new desired state" and fields["source"] == "operator" and at >= span.earliest
    )
    return min(told, default=float("inf")) if is_there else 0.0
