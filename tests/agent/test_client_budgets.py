"""Budgets over several pods: agents and the operator's record together, through restarts of all of them."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tunesmith.decide.serving.clients.usage import UsageRecord
from tunesmith_agent.access.access import Access
from tunesmith_agent.access.clients import Charge
from tunesmith_agent.metrics import Usage
from tunesmith_contract.agent import AgentReport, DesiredState, UsageOfOthers

BUDGET = 60_000
LARGEST = 400
NAME = "ada"


class Pod:
    """A pod with an agent, whose disk outlives the agent."""

    def __init__(self, fleet: "Fleet", number: int) -> None:
        self.fleet, self.uid = fleet, f"pod-{number}"
        self.connected = True
        self.boots = 0
        self.disk = fleet.folder / self.uid / "usage.json"
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.running: list[tuple[Charge, Usage]] = []
        fleet = self.fleet
        self.access = Access(
            fleet.keys, self.disk, lambda: self.connected, lambda: fleet.time, lambda: fleet.time
        )
        self.access.load()
        self.access.follow(DesiredState(generation=0, pods=fleet.count), "")

    def report(self) -> AgentReport:
        return AgentReport(
            pod_name=self.uid, pod_uid=self.uid, boot_id=f"{self.uid}-{self.boots}", engine_ready=True,
            applied_generation=1, access=self.access.report(),
        )  # fmt: skip

    def keep(self) -> None:
        self.access._shared.ledger.keep()


class Fleet:
    """Pods, and an operator that folds what they report."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.keys = folder / "keys"
        self.keys.mkdir()
        text = f'{{"key": "sk-0123456789abcdef", "budget": {{"tokens": {BUDGET}, "period": "Day"}}}}'
        (self.keys / NAME).write_text(text)
        self.time = datetime(2030, 1, 1, 1, tzinfo=UTC).timestamp()
        self.started = 0
        self.pods: list[Pod] = []
        for _ in range(count):
            self.add()
        self.written = self.record = UsageRecord()
        self.ended: list[AgentReport] = []

    def add(self) -> None:
        self.pods.append(Pod(self, self.started))
        self.started += 1

    def reconcile(self, messages: bool = True) -> None:
        """One pass of the operator, from what it wrote last."""
        now = datetime.fromtimestamp(self.time, UTC)
        reports = [pod.report() for pod in self.pods if pod.connected]
        uids = frozenset(pod.uid for pod in self.pods)
        record = self.written.fold([*self.ended, *reports], uids, now)
        if record.must_be_written(self.written, uids, now):
            written = UsageRecord.model_validate_json(record.model_copy(update={"written": now}).to_json())
            self.written = written
        if messages:
            for pod in self.pods:
                usage = record.messages(reports).get(pod.uid)
                if usage is not None and pod.connected:
                    pod.access.learn(UsageOfOthers.model_validate_json(usage.to_json()))
        self.record = record

    def ask(self, pod: Pod, choice: random.Random) -> None:
        body: dict[str, Any] = {"max_tokens": choice.randint(1, LARGEST - 40)}
        charge = pod.access.clients[0].admit(b"/v1/chat/completions", body, 100)
        if isinstance(charge, Charge):
            pod.running.append((charge, Usage(30, body["max_tokens"], 0)))

    @property
    def used(self) -> int:
        return sum(each.total for each in self.record.tokens)


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_pods_together_keep_a_budget(tmp_path: Path, seed: int, cuts: bool) -> None:
    """Pods, agents and the operator begin anew at random, and perhaps connections break."""
    choice = random.Random(seed)
    fleet = Fleet(tmp_path, count=choice.randint(2, 5))
    counted = largest_step = 0
    shares = 0.0
    for _ in range(600):
        fleet.time += 2
        since = counted
        for pod in fleet.pods:
            for _ in range(choice.randint(0, 3)):
                fleet.ask(pod, choice)
            while pod.running and choice.random() < 0.7:
                before = _own(pod)
                charge, usage = pod.running.pop(0)
                charge.settle(usage, answered=True)
                counted += _own(pod) - before
            pod.keep()
        largest_step = max(largest_step, counted - since)
        event = choice.random()
        pod = choice.choice(fleet.pods)
        if event < 0.03:
            pod.start()
        elif event < 0.05:
            if pod.connected:
                fleet.ended.append(pod.report())
                fleet.pods.remove(pod)
                fleet.add()
        elif event < 0.1 and cuts:
            # What it may use unheard.
            shares += max(0, BUDGET - fleet.used) / fleet.count if pod.connected else 0
            pod.connected = not pod.connected
        if choice.random() < 0.5:
            fleet.reconcile(messages=choice.random() < 0.9)
    for pod in fleet.pods:
        pod.connected = True
    fleet.reconcile()
    assert fleet.used == counted, "each token is counted once"
    assert any(pod.access.clients[0].counts.refusals for pod in fleet.pods)
    # What is used before others hear of it: a few passes of the operator.
    assert BUDGET - 2 * LARGEST * fleet.count < counted < BUDGET + shares + 4 * largest_step


def _own(pod: Pod) -> int:
    accounts = pod.access._shared.ledger.accounts(NAME)
    return sum(account.own for account in accounts.values())
