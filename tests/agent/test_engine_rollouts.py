"""Changes that nobody notices, against the real engine: clients ask on while versions and the base model change."""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from engines.engine_pods import EnginePods, engine_pods, until
from engines.engine_process import ENGINE_PYTHON, ENGINE_SECONDS, make_ordered
from models.order import Conversation, Order, OrderedAdapter, model_uri
from rollouts.clients import End, Load, mark_of_text
from rollouts.record_history import ModelChange, flips, needless_flips, wrong_answers

from tunesmith_contract.agent import DesiredAlias, OtherModel, Version, served_name

log = logging.getLogger(__name__)

ALIASES = ("expenses", "tickets")
FIRST, OTHER = "first", "other"
CLIENTS, CONVERSATIONS, RATE = 6, 40, 20.0
#: Requests per second while another engine starts on the same cores.
RATE_OF_TWO = 5.0
#: Requests between two changes.
PAUSE = 40

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(4 * ENGINE_SECONDS),
]


def make_adapters(folder: Path, names: dict[str, str]) -> dict[str, Version]:
    """Versions that each answer with their name.

    Args:
        names: base model of each name.
    """
    lunch = [{"role": "user", "content": "Lunch"}]
    adapters = [
        OrderedAdapter(name=name, model=model, conversations=[Conversation(messages=lunch, answer=name)])
        for name, model in names.items()
    ]
    return make_ordered(folder, Order(models=sorted(set(names.values())), adapters=adapters))


@dataclass(frozen=True, slots=True)
class Release:
    """A version that is released.

    Attributes:
        mark: what its answers say.
        killed_at: weight at which the agent is killed; None: it is not.
        is_rejected: it is taken back in the end, and the agent is killed then.
    """

    mark: str
    killed_at: int | None = None
    is_rejected: bool = False


RELEASES = (
    Release("expenses-1", killed_at=0),
    Release("expenses-2", killed_at=50),
    Release("expenses-3", killed_at=20, is_rejected=True),
    Release("expenses-4"),
    Release("expenses-5"),
)


class Change:
    """Clients of pods, and the versions that answer them.

    Attributes:
        marks: mark of each version by its name in answers.
    """

    def __init__(self, pods: EnginePods, versions: dict[str, Version], rate: float = RATE) -> None:
        self.pods, self.versions = pods, versions
        self.load = Load(
            pods, ALIASES, CONVERSATIONS, CLIENTS, rate, random.Random(1), read_pieces=mark_of_text
        )
        self.marks = {
            served_name(alias, version.digest): mark
            for alias in ALIASES
            for mark, version in versions.items()
        }

    def alias(self, name: str, stable: str, candidate: str = "", weight: int = 0) -> DesiredAlias:
        """An alias of these versions."""
        other = self.versions[candidate] if candidate else None
        return DesiredAlias(name=name, stable=self.versions[stable], candidate=other, weight=weight)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Clients ask until the block ends."""
        asking = asyncio.create_task(self.load.run())
        try:
            yield
        finally:
            self.load.stop.set()
            await asking

    async def more(self, count: int = PAUSE) -> None:
        """Wait for so many more requests."""
        await self.load.until(len(self.load.replies) + count)

    async def kill_agent(self) -> None:
        """Kill the agent of the pod that answers, and wait until the pod is ready again."""
        [pod] = self.pods.endpoints
        pod.kill()
        await until(lambda: pod.killed[-1][1] < float("inf") and not pod.is_ready)
        await self.pods.until_ready(pod.name)

    def check(self, rejected: Sequence[str] = (), changes: Sequence[ModelChange] = ()) -> None:
        """None failed, none was answered by a version without weight, and conversations keep their version."""
        replies, pods = self.load.replies, self.pods
        ends = Counter(reply.end.value for reply in replies)
        log.info("%s", json.dumps({"requests": ends, "killed": sum(len(pod.killed) for pod in pods.all)}))
        assert not [reply for reply in replies if reply.end is End.FAILED]
        assert not wrong_answers(replies, pods.history, pods.all, self.marks, changes)
        assert not needless_flips(replies, rejected, changes)
        assert ends[End.CUT] <= 2 * CLIENTS * sum(len(pod.killed) for pod in pods.all)


async def release(change: Change, stable: str, new: Release) -> str:
    """Release a version over the stable one, step by step; returns what is stable then."""
    pods, version = change.pods, change.versions[new.mark]
    tickets = change.alias("tickets", "tickets-0")
    for weight in (0, 20, 50):
        await pods.push(change.alias("expenses", stable, new.mark, weight), tickets)
        await pods.until_active(FIRST, "expenses", version)
        if weight:
            await change.more()
        if weight == new.killed_at:
            await change.kill_agent()
            await change.more()
    if new.is_rejected:
        back = change.alias("expenses", stable).model_copy(update={"rejected": (version.digest,)})
        await pods.push(back, tickets)
        pods.history.taken_back[served_name("expenses", version.digest)] = time.monotonic()
        await change.kill_agent()
    else:
        previous = {"previous": change.versions[stable]}
        await pods.push(change.alias("expenses", new.mark).model_copy(update=previous), tickets)
    await change.more()
    return stable if new.is_rejected else new.mark


async def test_nobody_notices_rollouts(tmp_path: Path) -> None:
    """Promotions and a way back, and the agent is killed in the middle of both."""
    names = ["expenses-0", "tickets-0", *(each.mark for each in RELEASES)]
    versions = await asyncio.to_thread(make_adapters, tmp_path, dict.fromkeys(names, FIRST))
    async with engine_pods(tmp_path) as pods:
        change = Change(pods, versions)
        await pods.push(*(change.alias(alias, f"{alias}-0") for alias in ALIASES))
        pods.selected = FIRST
        await pods.add(FIRST)
        async with change.asking():
            stable = "expenses-0"
            for each in RELEASES:
                stable = await release(change, stable, each)
    change.check([each.mark for each in RELEASES if each.is_rejected])
    assert any(flips(change.load.replies))
    assert {reply.mark for reply in change.load.replies} >= set(names)


async def test_nobody_notices_another_base_model(tmp_path: Path) -> None:
    """A second pod on another base model loads its own versions, then the Service leads to it."""
    names = {"expenses-0": FIRST, "tickets-0": FIRST, "expenses-1": OTHER, "tickets-1": OTHER}
    versions = await asyncio.to_thread(make_adapters, tmp_path, names)
    async with engine_pods(tmp_path) as pods:
        change = Change(pods, versions, RATE_OF_TWO)
        former = tuple(change.alias(alias, f"{alias}-0") for alias in ALIASES)
        following = tuple(change.alias(alias, f"{alias}-1") for alias in ALIASES)
        await pods.push(*former)
        pods.selected = FIRST
        await pods.add(FIRST)
        async with change.asking():
            await change.more()
            # What an operator tells agents while the second set of pods gets ready.
            next_model = OtherModel(base_model=model_uri(OTHER), aliases=following, current=model_uri(FIRST))
            await pods.push(*former, other=next_model)
            await pods.add(OTHER)
            for alias in ALIASES:
                await pods.until_active(OTHER, alias, versions[f"{alias}-1"])
            await change.more()
            switched = time.monotonic()
            pods.selected = OTHER
            last_model = OtherModel(base_model=model_uri(FIRST), aliases=former, current=model_uri(OTHER))
            await pods.push(*following, other=last_model)
            taken_over = time.monotonic()
            await pods.remove(FIRST)
            await pods.push(*following)
            await change.more(2 * PAUSE)
        gone = pods.pod(FIRST).gone_at
    model_change = ModelChange(
        versions={
            served_name(alias, versions[f"{alias}-0"].digest): served_name(
                alias, versions[f"{alias}-1"].digest
            )
            for alias in ALIASES
        },
        marks={f"{alias}-0": f"{alias}-1" for alias in ALIASES},
        switched=switched,
        gone=gone,
        taken_over=taken_over,
    )
    change.check(changes=[model_change])
    assert set(names) == {reply.mark for reply in change.load.replies}
