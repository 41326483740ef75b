"""Changes that nobody notices, against the real engine: clients ask on while versions and the base model change."""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
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
#: Versions of the one alias that are released, beside the first of each.
RELEASES = 5
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


async def test_nobody_notices_rollouts(tmp_path: Path) -> None:
    """Promotions and a way back, and the agent is killed in the middle of each kind."""
    names = {f"expenses-{number}": FIRST for number in range(RELEASES + 1)} | {"tickets-0": FIRST}
    versions = await asyncio.to_thread(make_adapters, tmp_path, names)
    async with engine_pods(tmp_path) as pods:
        change = Change(pods, versions)
        tickets = change.alias("tickets", "tickets-0")
        await pods.push(change.alias("expenses", "expenses-0"), tickets)
        pods.selected = FIRST
        await pods.add(FIRST)
        asking = asyncio.create_task(change.load.run())
        stable, rejected = "expenses-0", "expenses-3"
        for number in range(1, RELEASES + 1):
            candidate = f"expenses-{number}"
            await pods.push(change.alias("expenses", stable, candidate), tickets)
            await pods.until_active(FIRST, "expenses", versions[candidate])
            for weight in (20, 50):
                await pods.push(change.alias("expenses", stable, candidate, weight), tickets)
                await change.more()
                if (number, weight) in ((2, 50), (3, 20)):
                    await change.kill_agent()
                    await change.more()
            if candidate == rejected:
                name, digest = served_name("expenses", versions[candidate].digest), versions[candidate].digest
                back = change.alias("expenses", stable).model_copy(update={"rejected": (digest,)})
                await pods.push(back, tickets)
                pods.history.taken_back[name] = asyncio.get_running_loop().time()
                await change.kill_agent()
            else:
                previous = {"previous": versions[stable]}
                await pods.push(change.alias("expenses", candidate).model_copy(update=previous), tickets)
                stable = candidate
            await change.more()
        change.load.stop.set()
        await asking
    change.check([rejected])
    assert any(flips(change.load.replies))
    answered = {reply.mark for reply in change.load.replies}
    assert set(names) <= answered


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
        asking = asyncio.create_task(change.load.run())
        await change.more()
        await pods.push(
            *former,
            other=OtherModel(base_model=model_uri(OTHER), aliases=following, current=model_uri(FIRST)),
        )
        await pods.add(OTHER)
        for alias in ALIASES:
            await pods.until_active(OTHER, alias, versions[f"{alias}-1"])
        await change.more()
        switched = asyncio.get_running_loop().time()
        pods.selected = OTHER
        await pods.push(
            *following,
            other=OtherModel(base_model=model_uri(FIRST), aliases=former, current=model_uri(OTHER)),
        )
        taken_over = asyncio.get_running_loop().time()
        await pods.remove(FIRST)
        await pods.push(*following)
        await change.more(2 * PAUSE)
        change.load.stop.set()
        await asking
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
